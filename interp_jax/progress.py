"""Progress of long work, with the time that is left, on stderr: a bar on a terminal, lines in a log."""

import sys
import threading
import time
from typing import Any


class Progress:
    """Shows how far work of several steps has come, and about how long the rest will take, as a context manager.

    On a terminal it is a bar that moves. Elsewhere it is a line after `first` seconds and another one every `every`
    seconds, so that short work prints nothing. Both go to stderr, so that a table on stdout stays a table. The time
    that is left follows from the mean time of the steps that are done.

    Args:
      what: the work, in a word or two.
      total: how many steps it has.
      first: seconds before the first line of a log.
      every: seconds between two lines of a log.
      shown: False shows nothing.

    Attributes:
      done: how many steps are done.
      text: what is under way.

    Example:
      >>> from interp_jax.progress import Progress
      >>> with Progress("squares", 3, shown=False) as progress:
      ...     for n in range(3):
      ...         progress.begin(f"the square of {n}")
      >>> progress.done
      3
    """

    def __init__(self, what: str, total: int, *, first: float = 5.0, every: float = 10.0, shown: bool = True):
        self.what, self.total, self.done, self.text = what, total, 0, ""
        self._first, self._every, self._shown, self._begun = first, every, shown, 0
        self._started, self._over = time.monotonic(), threading.Event()
        self._bar: Any = None
        self._lines = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        if self._shown and sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(self.what, total=self.total, text="")
            self._bar.start()
        elif self._shown:
            self._lines.start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.update(max(self._begun, self.done))
        self._over.set()
        if self._bar is not None:
            self._bar.stop()
        elif self._shown:
            self._lines.join()

    def begin(self, text: str = "") -> None:
        """Begins the next step, so that those before it count as done. `text` says what the step is."""
        self.update(self._begun, text)
        self._begun += 1

    def update(self, done: int, text: str = "") -> None:
        """Sets how many steps are done. `text` says what is under way."""
        self.done, self.text = done, text
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)

    def __str__(self) -> str:
        gone = time.monotonic() - self._started
        left = f", about {_clock(gone / self.done * (self.total - self.done))} left" if self.done else ""
        return f"{self.what} {self.done}/{self.total}, {_clock(gone)} gone{left}  {self.text}".rstrip()

    def _tell(self) -> None:
        wait = self._first
        while not self._over.wait(wait):
            wait = self._every
            print(self, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("gone, left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    # Where stdout is the same terminal, what is printed meanwhile has to stand above the bar.
    return Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
