"""AxBench's scores beside loops and scikit-learn, and judges behind a server on the loopback that misbehaves."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from statistics import harmonic_mean
import sys
import threading
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp_jax.io import endpoint
from interp_jax.steering import axbench, judges

RNG = np.random.default_rng(0)


def test_detection_is_of_the_maximum() -> None:
    """Of real tokens alone, whatever stands in padding; hard negatives by themselves too."""
    a, mask = RNG.normal(size=(30, 8)), RNG.random((30, 8)) < 0.7
    mask[:, 0] = True
    positive, hard = np.arange(30) < 10, np.arange(30) >= 24
    largest = np.array([max(row[real]) for row, real in zip(a, mask, strict=True)])
    got = axbench.detection(np.where(mask, a, 1e9), mask, positive, hard)
    assert got.auroc == pytest.approx(roc_auc_score(positive, largest))
    pairs = [p > n for p in largest[positive] for n in largest[hard]]
    assert got.hard == pytest.approx(np.mean(pairs))
    assert np.isnan(axbench.detection(a, mask, positive).hard)


def test_harmonic_means() -> None:
    scores = RNG.uniform(0, 2, (5, 4, 3))
    scores[0, 0, 1] = scores[3] = 0
    got = axbench.harmonic(scores)
    want = [[harmonic_mean(one) for one in row] for row in scores.tolist()]
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_one_half_chooses_and_the_other_scores() -> None:
    """The factor that is best on the other half has no say."""
    scores = np.ones((3, 6, 3))
    scores[1, :3], scores[2, 3:] = 2, 2  # the second factor is best on the first half, the third on the other
    got = axbench.score((0.2, 0.4, 0.6), scores)
    assert got == (0.4, 1, 1, 1, 1, 0)
    turned = axbench.score((0.2, 0.4, 0.6), scores, choosing=np.arange(6) >= 3)
    assert (turned.factor, turned.harmonic) == (0.6, 1)
    assert len(axbench.FACTORS) == len(axbench.CLAMPS) == 14


def test_what_is_not_rated_is_counted_and_left_out() -> None:
    def judge(instruction: str, continuation: str, concept: str) -> judges.Scores:
        if continuation == "odd":
            raise judges.Unrated("no rating")
        return judges.Scores(2, 2, len(continuation))

    rows = [["a", "bb", "odd", "bb"], ["bb", "odd", "bb", "bb"]]
    scores = axbench.judged(judge, ["?"] * 4, rows, "concept")
    assert np.isnan(scores).any(-1).tolist() == [[False, False, True, False], [False, True, False, False]]
    assert axbench.score((0.5, 1.5), scores) == (1.5, 2, 2, 2, 2, 0.25)  # by 2 against (1.5 + 2) / 2


def test_ratings_are_read_strictly() -> None:
    assert judges.rating("Because.\nRating: [[1]]") == 1
    assert judges.rating("Rating: [[ 2.0 ]]. So: Rating: [[2.0]]") == 2
    for answer in ("", "2", "Rating: 2", "Rating: [[3]]", "Rating: [[-1]]", "Rating: [[]]", "Rating: [[0.5]]"):
        with pytest.raises(judges.Unrated, match="has not one"):
            judges.rating(answer)
    with pytest.raises(judges.Unrated):
        judges.rating("Rating: [[0]] or rather Rating: [[2]]")


def test_each_question_has_what_it_is_about() -> None:
    asked = judges.questions("Name a fruit.", "Apple, ahoy!", "pirates")
    has = [[part in prompt for part in ("Name a fruit.", "Apple, ahoy!", "pirates")] for prompt in asked]
    assert has == [[False, True, True], [True, True, False], [False, True, False]]
    assert all('"Rating: [[score]]"' in prompt for prompt in asked)


def test_expected_ratings() -> None:
    seen = []

    def log_probs(prompt, endings):
        seen.append(tuple(endings))
        return np.log([0.1, 0.2, 0.3])

    assert judges.by_probability(log_probs)("i", "c", "x") == pytest.approx([(0.2 + 0.6) / 0.6] * 3)
    assert seen[0] == ("Rating: [[0]]", "Rating: [[1]]", "Rating: [[2]]")
    with pytest.raises(judges.Unrated, match="one number for each"):
        judges.by_probability(lambda *_: [0.0, float("nan"), 0.0])("i", "c", "x")


Answers = list[tuple[int, Any]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], tuple[str, list[Any]]]]:
    """Starts a server that gives these answers, the last one again and again; its address and what it was asked."""
    started = []

    def start(answers: Answers) -> tuple[str, list[Any]]:
        asked: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, content = answers[min(len(asked), len(answers)) - 1]
                body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/v1", asked

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def asking(url: str, **options: Any):
    return endpoint.ask("m", base_url=url, api_key="none", **options)


def test_a_busy_endpoint_is_asked_again(serve) -> None:
    busy = {"error": {"message": "slow down"}}
    url, asked = serve([(429, busy), (500, "oh"), (200, completion("Good. Rating: [[2]]"))])
    judge = judges.by_answer(asking(url))
    assert judge("Name a fruit.", "Apple, ahoy!", "pirates") == (2, 2, 2)
    assert len(asked) == 5  # three questions, of which the first was asked three times
    assert asked[0] == asked[2] and asked[0]["model"] == "m" and asked[0]["temperature"] == 0
    prompts = [one["messages"][0]["content"] for one in asked[2:]]
    assert prompts == list(judges.questions("Name a fruit.", "Apple, ahoy!", "pirates"))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((500, "oh"), ConnectionError, "status 500"),
        ((429, {"error": {"message": "slow down"}}), ConnectionError, "status 429: .*slow down"),
        ((401, {"error": {"message": "who are you"}}), ConnectionError, "status 401: .*who are you"),
        ((200, '{"id": "1", "choi'), ValueError, "no chat completion"),
        ((200, {"choices": []}), ValueError, "no chat completion"),
        ((200, {"object": "list"}), ValueError, "no chat completion"),
        ((200, completion(None)), ValueError, "the answer has no text"),
        ((200, completion("I would say two.")), judges.Unrated, "has not one"),
        ((200, completion("Rating: [[7]]")), judges.Unrated, "has not one"),
    ],
)
def test_what_is_no_answer_is_one_line(serve, answer, error, message) -> None:
    url, _ = serve([answer])
    with pytest.raises(error, match=message) as raised:
        judges.by_answer(asking(url, max_retries=1))("i", "c", "x")
    assert "\n" not in str(raised.value)


def test_an_endpoint_that_is_not_there(monkeypatch) -> None:
    with pytest.raises(ConnectionError, match="http://127.0.0.1:9/v1: m: "):
        asking("http://127.0.0.1:9/v1", max_retries=0)("?")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="no key: give api_key="):
        endpoint.ask("m")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"pip install 'interp_jax\[judge\]'"):
        endpoint.ask("m")


X, REAL = np.ones((2, 3)), np.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: axbench.detection(X, REAL[:1], [True, False]), r"give \[text position\] twice"),
        (lambda: axbench.detection(X, REAL, [True, True]), "give texts that have the concept and others"),
        (lambda: axbench.detection(X, REAL, [True, False], [True, False]), "hard ones among the others"),
        (lambda: axbench.detection(X, REAL & False, [True, False]), "no token that counts"),
        (lambda: axbench.detection(X * np.nan, REAL, [True, False]), "not finite"),
        (lambda: axbench.score((1.0,), np.ones((2, 4, 3))), "of 1 factors"),
        (lambda: axbench.score((1.0,), np.ones((1, 1, 3))), "both to choose the factor and to score it"),
        (lambda: axbench.score((1.0,), np.full((1, 4, 3), 3.0)), "scores are 0 to 2"),
        (lambda: axbench.score((1.0,), np.full((1, 4, 3), np.nan)), "rated no continuation"),
        (lambda: axbench.judged(lambda *_: judges.Scores(0, 0, 0), ["i"], [["c", "d"]], "x"), "each of the 1"),
        (lambda: axbench.judged(lambda *_: judges.Scores(0, 0, 9), ["i"], [["c"]], "x"), "scores are 0 to 2"),
    ],
)
def test_bad_input_is_one_line(make, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
