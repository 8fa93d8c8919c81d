"""An endpoint over real HTTP: busy, failing, slow, cut off, refusing, gone half way; its answers kept, its pace."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
import re
import time
from typing import Any

import pytest

from interp_jax.io import chat, endpoint, pacing
from tests import chat_server
from tests.chat_server import Server, completion, serving


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(serving(Server(*args, **options)))


def connect(server: Server, **options: Any) -> endpoint.Endpoint:
    return endpoint.Endpoint("m", base_url=server.url, api_key="none", **{"max_retries": 2} | options)


def question(text: object, **options: Any) -> chat.Request:
    return chat.says("Be brief.", str(text), **options)


def test_several_at_once_in_their_order(serve) -> None:
    server = serve(lambda body, _: completion("re: " + body["messages"][-1]["content"]), delay=0.05)
    to = connect(server, at_once=4)
    replies = to([question(i) for i in range(8)] + [question(0)])
    assert [reply.text for reply in replies] == [f"re: {i}" for i in range(8)] + ["re: 0"]
    assert server.busiest == 4 and len(server.asked) == 8  # the same question is asked once
    assert to.usage == endpoint.Usage(asked=8, read=80, written=24)
    assert to.usage.cost((1.0, 10.0)) == pytest.approx((80 + 240) / 1e6)


def test_log_probabilities(serve) -> None:
    server = serve(lambda *_: completion("1", [("1", {"1": -0.1, "0": -2.4})]))
    (reply,) = connect(server)([question("?", top=5, max_tokens=7)])
    assert reply.tokens == (chat.Token("1", -0.1, {"1": -0.1, "0": -2.4}),)
    (asked,) = server.asked
    assert (asked["top_logprobs"], asked["max_tokens"], asked["temperature"]) == (5, 7, 0)
    (reply,) = connect(server)([question("?")])
    assert "logprobs" not in server.asked[1] and reply.text == "1"


def test_an_answer_that_is_read(serve) -> None:
    server = serve(lambda body, _: chat_server.echo(body["prompt"], 1, -0.5, {"4": -0.5}))
    to = connect(server)
    (reply,) = to([question("abc", answer="xyz", top=11)])
    assert [token.text for token in reply.tokens] == ["x", "y", "z"] and reply.text == "xyz"
    assert reply.tokens[0] == chat.Token("x", -0.5, {"4": -0.5})
    (asked,) = server.asked
    assert asked["prompt"] == "Be brief.\n\nabc\n\nxyz" and server.paths == ["/v1/completions"]
    assert (asked["echo"], asked["max_tokens"], asked["logprobs"]) == (True, 0, 11)


def test_a_busy_endpoint_is_asked_again(serve) -> None:
    said = [(429, {"error": {"message": "slow down"}}), (500, "oh"), completion("yes")]
    server = serve(lambda _, n: said[n])
    to = connect(server)
    assert to([question("?")])[0].text == "yes" and len(server.asked) == 3
    assert to.usage.asked == 1  # one request, sent three times


def test_what_is_no_answer_is_told_of_that_request_alone(serve) -> None:
    bad = {
        "fails": (500, "oh"),
        "wrong": (400, {"error": {"message": "too long"}}),
        "cut": (200, '{"id": "1", "choi'),
        "refuses": completion(None, refusal="I cannot\nhelp"),
        "empty": completion(None),
        "none": (200, {"choices": []}),
    }
    server = serve(lambda body, _: bad.get(body["messages"][-1]["content"], completion("fine")))
    to = connect(server, max_retries=1, at_once=1)
    replies = dict(zip([*bad, "good"], to([question(name) for name in [*bad, "good"]]), strict=True))
    assert replies["good"] == chat.Reply("fine")
    told = {name: reply.error for name, reply in replies.items() if name != "good"}
    want = (
        "status 500",
        "status 400: .*too long",
        "no chat completion",
        "refuses: I cannot help",
        "no text",
        "no chat",
    )
    for error, part in zip(told.values(), want, strict=True):
        assert re.search(part, error) and "\n" not in error, error
    assert to.usage.failed == len(bad) and all(not replies[name].text for name in bad)


def test_a_slow_endpoint(serve) -> None:
    server = serve(lambda *_: completion("late"), delay=0.4)
    to = connect(server, timeout=0.05, max_retries=1)
    (reply,) = to([question("?")])
    assert "timed out" in reply.error.lower() and len(server.asked) == 2


def test_what_was_answered_is_kept_and_a_second_run_finishes(serve, tmp_path) -> None:
    """The endpoint dies after five of twelve; nothing that was answered is asked again."""
    server = serve(lambda body, n: completion(body["messages"][-1]["content"]) if n < 5 else (503, "down"))
    asked = [question(i) for i in range(12)]
    with pytest.raises(ConnectionError, match=rf"{server.url}: m: status 503"):
        connect(server, max_retries=0, at_once=1, cache=tmp_path)(asked)
    before = len(server.asked)
    assert before == 5 + endpoint.DOWN
    server.answer = lambda body, _: completion(body["messages"][-1]["content"])
    again = connect(server, cache=tmp_path)
    assert [reply.text for reply in again(asked)] == [str(i) for i in range(12)]
    assert len(server.asked) == before + 7 and again.usage.cached == 5
    third = connect(server, cache=tmp_path)
    assert [reply.text for reply in third(asked)] == [str(i) for i in range(12)]
    assert third.usage == endpoint.Usage(cached=12) and third.usage.cost((5.0, 5.0)) == 0
    assert connect(server, cache=tmp_path, temperature=1.0)([question(0)])[0].text == "0"
    assert len(server.asked) == before + 8  # another temperature is another question


def test_an_answer_that_was_cut_on_disk_is_asked_again(serve, tmp_path) -> None:
    server = serve(lambda *_: completion("yes", [("yes", {"yes": -0.5})]))
    (first,) = connect(server, cache=tmp_path)([question("?", top=1)])
    (file,) = tmp_path.rglob("*.json")
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    assert connect(server, cache=tmp_path)([question("?", top=1)]) == [first] and len(server.asked) == 2
    assert connect(server, cache=tmp_path)([question("?", top=1)]) == [first] and len(server.asked) == 2


def test_errors_that_will_not_pass(serve) -> None:
    server = serve(lambda *_: (401, {"error": {"message": "who are you"}}))
    with pytest.raises(ConnectionError, match="status 401: .*who are you"):
        connect(server, at_once=1)([question(i) for i in range(5)])
    assert len(server.asked) == 1
    with pytest.raises(ValueError, match="at_once=0"):
        connect(server, at_once=0)
    with pytest.raises(ValueError, match="requests_per_minute=0"):
        connect(server, requests_per_minute=0)


def test_no_key(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="no key: give api_key="):
        endpoint.Endpoint("m")


def test_the_pace(monkeypatch) -> None:
    """Never more than the limits in any window of a minute, and no longer than that takes."""
    now = [0.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pacing.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    pace, begun = pacing.Pace(requests=3, tokens=100), []
    for n in [30, 30, 30, 30, 90, 20, 500, 10]:
        pace.wait(n)
        begun.append((now[0], n))
    for start, _ in begun:
        window = [n for t, n in begun if start <= t < start + 60]
        assert len(window) <= 3 and (sum(window) <= 100 or window == [500])
    assert [t for t, _ in begun] == [0, 0, 0, 60, 120, 180, 240, 300]
    start = time.perf_counter()
    pacing.Pace().wait(10**9)
    assert time.perf_counter() - start < 0.1
