"""Units explained over real HTTP by a server that misbehaves: what can be used is used, what was done is kept."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
import re

import pytest

from interp_jax import explain
from interp_jax.explain.explanations import methods
from interp_jax.io.endpoint import Endpoint
from tests.chat_server import Server, completion, serving
from tests.explain import units

WANTED = ("simulation", "detection", "fuzzing", "intruder")
RULES = [units.on_cats, units.after_kings]


def examples(unit: int) -> explain.Evidence:
    return units.examples(RULES[unit % 2], seed=unit)


def knowing(body: dict) -> str:
    """What a model would say that knows cats and dogs."""
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    if user.endswith("Explanation:"):
        return "Explanation: cats and dogs"
    if "\t" in user:
        tokens = [line.split("\t")[1] for line in user.split("Tokens:\n")[1].splitlines()]
        return str({str(i): {" cat": 10, " dog": 5}.get(token, 0) for i, token in enumerate(tokens, 1)}).replace(
            "'", '"'
        )
    lines = user.split("\n\n")[-1].splitlines()
    said = [
        int(bool(re.search("cat|dog", line.split("<<")[1].split(">>")[0] if "<<" in line else line))) for line in lines
    ]
    if "does not belong" in system:
        return str(1 + said.index(0)) if 0 in said else "none"
    return "{" + ", ".join(f'"{i}": {x}' for i, x in enumerate(said, 1)) + "}"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(serving(Server(*args, **options)))


def connect(server: Server, cache=None, **options) -> Endpoint:
    return Endpoint("m", base_url=server.url, api_key="none", cache=cache, **{"max_retries": 1} | options)


def run(server: Server, path, *, n: int = 1, **options) -> explain.Explained:
    method = explain.by_model("marks", WANTED)
    chat = connect(server, path / "answers", **options)
    return explain.explain_units(method, "a", range(0, 2 * n, 2), examples, chat=chat, path=path, shown=False)


def test_a_model_that_knows_has_the_best_scores(serve, tmp_path) -> None:
    server = serve(lambda body, _: completion(knowing(body)))
    found = run(server, tmp_path)
    (one,) = found.explanations
    assert (one.text, one.explainer, found.unusable) == ("cats and dogs", "marks", 0)
    assert {name: score.value for name, score in one.scores.items()} == pytest.approx(dict.fromkeys(one.scores, 1.0))
    assert {"simulation", "detection_auc", "fuzzing_f1", "intruder"} < set(one.scores)
    assert list(explain.load_explanations(tmp_path).values()) == [one]


def test_what_it_takes_is_told_before(serve, tmp_path) -> None:
    server = serve(lambda body, _: completion(knowing(body)))
    before = explain.cost_of(explain.by_model("marks", WANTED), [examples(0)], 2)
    assert not server.asked
    run(server, tmp_path, n=2)
    assert before.requests == len(server.asked)
    sent = sum(len(m["content"]) for body in server.asked for m in body["messages"]) / 4
    assert before.read == pytest.approx(sent, rel=0.2)  # explanations are about as long as was thought


def test_one_bad_answer_voids_nothing_else(serve, tmp_path) -> None:
    """Every fifth answer is bad in one of six ways; the scores of what is left stand, and the rest is counted."""
    bad = [
        (500, "oh"),
        (200, '{"id": "1", "cho'),
        completion("I'm sorry, but I cannot help with that."),
        completion(None, refusal="no"),
        completion('{"1": 0, "2"'),
        completion(""),
    ]
    order: dict[str, int] = {}

    def answer(body, _):
        i = order.setdefault(str(body["messages"]), len(order))  # the same when it is asked again
        return bad[i // 5 % 6] if i % 5 == 4 and i < 40 else completion(knowing(body))

    server = serve(answer)
    found = run(server, tmp_path, at_once=1)
    (one,) = found.explanations
    assert 0 < found.unusable < found.used / 2
    assert min(score.value for score in one.scores.values()) > 0.9  # an entry that is cut off is no wrong one


def test_an_explanation_that_is_refused_is_told(serve, tmp_path) -> None:
    server = serve(lambda body, _: completion("I'm sorry, but I cannot help with that."))
    found = run(server, tmp_path, n=2)
    assert found.explanations == () and found.skipped == dict.fromkeys([0, 2], "the language model gave no explanation")


def test_an_endpoint_that_dies_half_way(serve, tmp_path, monkeypatch) -> None:
    """What was explained stands in the file, what was answered is not paid again, and a second run ends it all."""
    monkeypatch.setattr(methods, "UNITS", 1)
    total = serve(lambda body, _: completion(knowing(body)))
    run(total, tmp_path / "whole", n=3)
    n_all = len(total.asked)
    server = serve(lambda body, n: completion(knowing(body)) if n < n_all - 12 else (503, "down"))
    with pytest.raises(ConnectionError, match="status 503"):
        run(server, tmp_path / "cut", n=3, max_retries=0, at_once=2)
    kept = explain.load_explanations(tmp_path / "cut")
    assert 0 < len(kept) < 3
    server.answer = lambda body, _: completion(knowing(body))
    before = len(server.asked)
    again = run(server, tmp_path / "cut", n=3)
    assert len(again.explanations) == 3 and len(server.asked) - before == 12
    assert explain.load_explanations(tmp_path / "cut") == explain.load_explanations(tmp_path / "whole")
