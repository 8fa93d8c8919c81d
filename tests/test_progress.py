"""Progress: lines in a log, not too many, with the time that is left; nothing on stdout."""

import pytest

from interp_jax import progress
from interp_jax.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_of_a_log(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    with Progress("sweep", 4) as shown:
        shown.begin("a")
        clock[0] += 25
        for step in "bcd":
            shown.begin(step)
            clock[0] += 4
        clock[0] += 53
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == [
        "sweep 0/4, 0:00 gone  a",
        "sweep 1/4, 0:25 gone, about 1:15 left  b",
        "sweep 4/4, 1:30 gone, about 0:00 left",
    ]


def test_what_fails_is_not_done(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(KeyError), Progress("sweep", 2) as shown:
        shown.begin("a")
        raise KeyError
    assert shown.done == 0 and capsys.readouterr().err == "sweep 0/2, 0:00 gone  a\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress("sweep", 2) as shown:
        shown.begin("a")
        print("a table")
    assert shown._bar.finished is False and shown._bar.tasks[0].completed == 1
    assert capsys.readouterr().out == "a table\n"
