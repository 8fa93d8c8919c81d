"""What a transform did, told while it does it: for `explain`, which listens."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
import threading
from typing import Any

from interp_jax.core.addresses import Target
from interp_jax.core.paths import Path, Piece, layers_text
from interp_jax.core.walking import walk_equation


@dataclass(frozen=True)
class Scan:
    """How a scan was evaluated.

    Attributes:
      length: how many iterations it has.
      pieces: those that are evaluated, in order, each `(first iteration, number, whether a scan runs them)`: one that a
        scan does not run stands by itself.
      left_out: the iterations that nothing needs.
    """

    length: int
    pieces: tuple[Piece, ...]
    left_out: tuple[int, ...]

    def __str__(self) -> str:
        parts = [("scan " if p.scanned else "by itself ") + layers_text(tuple(p.iterations)) for p in self.pieces]
        rest = f"; left out: {layers_text(self.left_out)}" if self.left_out else ""
        whole = len(self.pieces) == 1 and self.pieces[0].length == self.length
        return f"{self.length} iterations, " + ("in one piece" if whole else f"in pieces: {', '.join(parts)}{rest}")


class Log:
    """The doings of one transform, in the order in which they came.

    What is traced twice, as jax does with the body of a loop, is told once: everything is kept by what it is about.

    Attributes:
      name: of the transform or method.
      asked: address -> the targets that it stands for.
      captured: (site, path) of every visit whose value is kept.
      edited: (site, path, edit) of every edit that was applied.
      read: (site, path) of every value that an edit reads elsewhere, with `via`.
      cuts: how each scan with a site of interest was evaluated.
      details: sites for which a detailed computation was taken.
      left_out: sites in equations that nothing needs.
      n_left_out: how many equations nothing needs.
      inner: the logs of the transforms that were called meanwhile.
    """

    def __init__(self, name: str):
        self.name = name
        self.asked: dict[str, tuple[Target, ...]] = {}
        self.captured: dict[tuple[str, Path], None] = {}
        self.edited: dict[tuple[str, Path, str], None] = {}
        self.read: dict[tuple[str, Path], None] = {}
        self.cuts: dict[tuple[int, Path], Scan] = {}
        self.details: dict[str, None] = {}
        self.inner: list[Log] = []
        self._skipped: dict[tuple[int, Path], Any] = {}

    def asks(self, address: str, targets: Iterable[Target]) -> None:
        self.asked[address] = tuple(targets)

    def keeps(self, name: str, path: Path) -> None:
        self.captured[name, path] = None

    def edits(self, name: str, path: Path, told: Callable[[], str]) -> None:
        if is_listened_to():  # since telling looks at the numbers of the edit, and perhaps at much else
            self.edited[name, path, told()] = None

    def reads(self, name: str, path: Path) -> None:
        self.read[name, path] = None

    def cut(self, eqn: Any, path: Path, run: Iterable[Piece], left_out: Iterable[Piece]) -> None:
        rest = sorted(i for piece in left_out for i in piece.iterations)
        self.cuts[id(eqn), path] = Scan(eqn.params["length"], tuple(run), tuple(rest))

    def details_for(self, names: Iterable[str]) -> None:
        self.details.update(dict.fromkeys(names))

    def skips(self, eqn: Any, path: Path) -> None:
        self._skipped[id(eqn), path] = eqn

    @property
    def n_left_out(self) -> int:
        return len(self._skipped)

    @property
    def left_out(self) -> tuple[str, ...]:
        found = (f for (_, path), eqn in self._skipped.items() for f in walk_equation(eqn, path))
        return tuple(dict.fromkeys(f.name for f in found if not f.copy))

    def facts(self) -> Mapping[str, Any]:
        """All that it tells, to be compared with another's."""
        told = self.asked, self.captured, self.edited, self.read, list(self.cuts.values()), self.details
        return {"name": self.name, "told": told, "left out": (self.n_left_out, self.left_out)}


class _Listening(threading.local):
    def __init__(self) -> None:
        self.stack: list[Log] = []


_listening = _Listening()


def is_listened_to() -> bool:
    """Whether somebody listens, so that a transform must do its work anew."""
    return bool(_listening.stack)


def current() -> Log:
    """The log of the transform that is being evaluated; one that nobody reads where nobody listens."""
    return _listening.stack[-1] if _listening.stack else Log("")


@contextmanager
def listening(name: str) -> Iterator[Log]:
    """Collects the logs of the transforms that are evaluated inside, as those inside one of this name."""
    log = Log(name)
    _listening.stack.append(log)
    try:
        yield log
    finally:
        _listening.stack.pop()


@contextmanager
def evaluating(name: str) -> Iterator[None]:
    """Gives a transform its own log, where somebody listens."""
    if not _listening.stack:
        yield
        return
    outer = _listening.stack[-1]
    with listening(name) as log:
        yield
    if all(log.facts() != other.facts() for other in outer.inner):  # a body that jax traces twice is told once
        outer.inner.append(log)
