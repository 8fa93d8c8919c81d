"""Progress: lines in a log, also while a long step runs, with the time that is left; nothing on stdout."""

import time

import pytest

from interp_jax import progress
from interp_jax.progress import Progress


def test_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("sweep", 4, shown=False) as shown:
        shown.begin("a")
        assert str(shown) == "sweep 0/4, 0:00 gone  a"
        now[0] += 25
        shown.begin("b")
        assert str(shown) == "sweep 1/4, 0:25 gone, about 1:15 left  b"
        now[0] += 65
        shown.update(4)
    assert str(shown) == "sweep 4/4, 1:30 gone, about 0:00 left"


def test_lines_of_a_log(capsys: pytest.CaptureFixture) -> None:
    with Progress("sweep", 4, first=0.05, every=0.05) as shown:
        for step in "abcd":
            shown.begin(step)
        time.sleep(0.4)
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[-2:] == ["sweep 3/4, 0:00 gone, about 0:00 left  d"] * 2


def test_what_is_soon_done_says_nothing(capsys: pytest.CaptureFixture) -> None:
    with Progress("sweep", 1) as shown:
        shown.begin("a")
    assert capsys.readouterr() == ("", "")


def test_what_fails_is_not_done() -> None:
    with pytest.raises(KeyError), Progress("sweep", 2) as shown:
        shown.begin("a")
        raise KeyError
    assert shown.done == 0 and not shown._lines.is_alive()


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress("sweep", 2) as shown:
        shown.begin("a")
        print("a table")
    assert shown._bar.tasks[0].completed == 1 and not shown._lines.is_alive()
    assert capsys.readouterr().out == "a table\n"
