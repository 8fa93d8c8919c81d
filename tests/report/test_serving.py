"""The dashboard's API: what it gives is in the records, and whatever else is asked for is refused in one line."""

from dataclasses import replace
import json
import re
from typing import Any
from urllib.parse import unquote

import anyio
import numpy as np
import pytest

from interp_jax import report

CAT, DEAD = 2, 7
LOCAL = "http://127.0.0.1:8765"


@pytest.fixture
def client(board):
    from starlette.testclient import TestClient

    with TestClient(report.dashboard_app(board), base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client


def told(response) -> str:
    """The one line of an error."""
    (line,) = response.json().values()
    assert "\n" not in line and line
    return line


def test_what_there_is(client) -> None:
    board = client.get("/api/board").json()
    assert board["title"] == "a <title>"
    assert board["live"] and board["heads"]
    seen, other = board["sources"]
    assert seen["facts"] == [["kind", "ReLU"]] and other["facts"] == []
    assert (seen["name"], seen["noun"], seen["n_units"]) == ("seen", "feature", 8)
    assert (other["noun"], other["scores"], other["steers"]) == ("neuron", [], False)
    assert seen["scores"] == ["simulation", "fuzzing"] and seen["steers"] and seen["n_tokens"] == 12 * 23


def test_the_list_is_that_of_the_records(client, records) -> None:
    listed = client.get("/api/0/list/0").json()
    assert listed["start"] == 0
    assert np.allclose(listed["density"], records["seen"].densities, rtol=1e-3)
    assert listed["maximum"] == [0, 2, 3, 4, 5, 6, 7, 0] and listed["tokens"][CAT] == [" cat"]
    assert listed["tokens"][DEAD] == []
    assert listed["text"][CAT].startswith("cats <script>") and listed["text"][3] == ""
    assert listed["scores"]["simulation"] == [None, None, 0.5, *[None] * 5]
    assert "list" in told(client.get("/api/0/list/1"))


def test_the_page_of_a_unit(client, records) -> None:
    unit = client.get(f"/api/0/unit/{CAT}").json()
    assert unit["count"] == int(records["seen"].counts[CAT]) == unit["fired_on"][0][1]
    assert unit["maximum"] == unit["mean"] == 3 and unit["fired_on"][0][0] == " cat"
    (bin_,) = unit["histogram"]["counts"]
    assert bin_ == unit["count"] and unit["histogram"]["edges"][0] <= 3 <= unit["histogram"]["edges"][1]
    for example in unit["top"]:
        assert example["tokens"][example["focus"]] == " cat" and example["values"][example["focus"]] == 3
        assert [value > 0 for value in example["values"]] == [token == " cat" for token in example["tokens"]]
    assert len({tuple(example["tokens"]) for example in unit["top"]}) == len(unit["top"]) > 1
    assert unit["intervals"][0]["high"] == 3 and unit["intervals"][0]["examples"]
    assert unit["raised"][0] == [" cat", pytest.approx(0.8)]
    assert [number for number, _, _ in unit["nearest"]][0] != CAT
    said = unit["explanations"][0]
    assert said["explainer"] == "me" and said["scores"]["fuzzing"] == {"value": 0.875, "low": None, "high": None}


def test_a_unit_that_never_fires_has_a_page(client) -> None:
    unit = client.get(f"/api/0/unit/{DEAD}").json()
    assert unit["count"] == 0 and unit["top"] == unit["intervals"] == unit["fired_on"] == []
    assert unit["histogram"] == {"edges": [], "counts": []} and unit["nearest"] and unit["raised"]


def test_heads(client) -> None:
    first, second = client.get("/api/heads").json()
    assert (second["layer"], second["head"], second["share"]) == (0, 1, 0.1)
    assert first["scores"] == {"self": 0.25, "distance variance": 3.0} and second["scores"]["distance variance"] is None
    head = client.get("/api/head/0/1").json()
    assert head["scores"][1] == ["distance variance", "–", ""] and head["top"][0]["excerpt"]["values"].count(0.5) == 1
    assert told(client.get("/api/head/1/0")) == "there is no head 1.0"


def test_texts_are_tried_and_steered(client) -> None:
    fired = client.post(f"/api/0/unit/{CAT}/fire", json={"text": "the cat"}).json()
    assert fired == {"tokens": [" the", " cat"], "values": [0, 2]}
    steered = client.post(f"/api/0/unit/{CAT}/steer", json={"prompt": "the", "strength": -1.5}).json()
    assert steered == {"before": " goes on", "after": " held 2 at -1.5 <b>"}
    refused = client.post(f"/api/0/unit/{CAT}/steer", json={"prompt": "impossible", "strength": 1})
    assert refused.status_code == 422 and told(refused) == "the text is too long; shorten it"
    assert client.post("/api/1/unit/0/steer", json={"prompt": "the", "strength": 1}).status_code == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": ""}, 422),
        ({"text": 3}, 422),
        ({}, 422),
        ([], 400),
        ({"text": "a" * 2001}, 422),
        ({"text": "a" * 20_000}, 413),
    ],
)
def test_bad_texts_are_refused(client, body, status: int) -> None:
    response = client.post("/api/0/unit/2/fire", json=body)
    assert response.status_code == status and told(response)


@pytest.mark.parametrize("strength", ["1e999", "null", "21", '"2"', "true", "NaN"])
def test_bad_strengths_are_refused(client, strength: str) -> None:
    body = f'{{"prompt": "the", "strength": {strength}}}'
    response = client.post("/api/0/unit/2/steer", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422 and "strength" in told(response)


def test_what_is_posted_is_of_this_page_and_is_json(client) -> None:
    where, body = "/api/0/unit/2/fire", {"text": "cat"}
    assert client.post(where, json=body, headers={"origin": LOCAL}).status_code == 200
    for origin in ("http://evil.example", "null", "https://127.0.0.1:8765", "http://127.0.0.1"):
        assert client.post(where, json=body, headers={"origin": origin}).status_code == 403
    assert client.post(where, data={"text": "cat"}).status_code == 415
    assert client.post(where, content="{", headers={"content-type": "application/json"}).status_code == 400
    assert client.get(where).status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "0.0.0.0"])
def test_another_host_is_refused(client, host: str) -> None:
    assert client.get("/api/board", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8765"])
def test_the_loopback_is_served(client, host: str) -> None:
    assert client.get("/api/board", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../pyproject.toml",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/..%2f..%2fpyproject.toml",
        "/web/src/main.tsx",
        "/app.js/../app.css",
        "//etc/passwd",
        "/api/0/unit/-1",
        "/api/0/unit/8",
        "/api/0/unit/x",
        "/api/2/unit/0",
        "/api/9/list/0",
        "/api/0/unit/999999999999999999999999",
        "/nothing",
    ],
)
def test_what_is_not_there(board, path: str) -> None:
    """As it is sent: a client would take the dots out of it."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "method": "GET",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
    }
    scope |= {"path": unquote(path), "raw_path": path.encode()}
    anyio.run(report.dashboard_app(board), scope, receive, send)
    start, body = sent
    assert start["status"] == 404 and json.loads(body["body"])["error"].startswith("there is no")


def test_the_page_loads_nothing_else(client, board) -> None:
    page = client.get("/")
    assert "<title>a &lt;title&gt;</title>" in page.text and "http" not in page.text.replace("http-equiv", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "'unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for name in ("app.js", "app.css"):
        content = client.get(f"/{name}")
        assert content.status_code == 200 and len(content.content) < 80_000
        assert not set(re.findall(r"https?://[\w.]+", content.text)) - {"http://www.w3.org"}
    assert client.get("/app.js").headers["content-security-policy"]


def test_without_a_model_it_is_said_how_to_have_one(board) -> None:
    from starlette.testclient import TestClient

    still = replace(board, live=None, remedy="interp-jax dashboard mine")
    client = TestClient(report.dashboard_app(still), base_url=LOCAL)
    assert not client.get("/api/board").json()["live"]
    response = client.post("/api/0/unit/2/fire", json={"text": "cat"})
    assert response.status_code == 409 and "interp-jax dashboard mine" in told(response)


def test_a_failure_is_one_line(board) -> None:
    from starlette.testclient import TestClient

    def fails(*_: object) -> object:
        raise RuntimeError("out of\nmemory")

    broken = replace(board, live=report.Live(fails, fails, frozenset({"seen"}), frozenset()))  # type: ignore[arg-type]
    client = TestClient(report.dashboard_app(broken), base_url=LOCAL, raise_server_exceptions=False)
    response = client.post("/api/0/unit/2/fire", json={"text": "cat"})
    assert response.status_code == 500 and told(response) == "RuntimeError: out of memory"


def test_a_port_in_use_is_told() -> None:
    with report.listening(0) as at:
        host, port = at.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(OSError, match=f"port {port}: .*or 0 for any free one"):
            report.listening(port)
    with pytest.raises(OSError, match="port 70000"):
        report.listening(70_000)


def test_no_records_no_board() -> None:
    with pytest.raises(ValueError, match="no records"):
        report.Board("none", {}, [])
