"""The data of one evaluation: what is wanted and edited, where the interpreter stands, and what it has recorded."""

from typing import Any, NamedTuple

import jax

from interp_jax.core.addresses import Target
from interp_jax.core.context import Context
from interp_jax.core.edits import Intervention
from interp_jax.core.paths import Path, Piece, contains, meets
from interp_jax.core.walking import Found

Array = jax.Array
Request = tuple[str, Path]  # a visit of a site whose value a later `via` reads


class Want(NamedTuple):
    """A value to capture: a target, and (or None) the reducer of what is kept."""

    target: Target
    reducer: Intervention | None


class Edit(NamedTuple):
    """An intervention at a site, confined to static `layers` or (None) at every layer."""

    name: str
    layers: frozenset[int] | None
    intervention: Intervention
    reads: dict[str, Target]

    def meets(self, path: Path) -> bool:
        """Whether it may do something at a visit of the site."""
        early = bool(path) and path[-1].start + path[-1].length <= self.intervention.since
        return not early and meets(path, self.layers)


class Record(NamedTuple):
    """What the key of a record stands for. `want` is None for a value that only a `via` reads."""

    want: int | None
    name: str
    path: Path
    mapped: tuple[int, ...]

    @property
    def key(self) -> str:
        # A string, since the keys of a dictionary that crosses jit and scan must sort.
        return f"{self.want}|{self.name}|{[tuple(piece) for piece in self.path]}"


class Iteration(NamedTuple):
    """A scan that is being evaluated, or one iteration taken out of it, whose index is static."""

    piece: Piece
    index: int | Array
    cut: bool


class Scope:
    """The records met so far in this function body, and in those around it."""

    def __init__(self, parent: "Scope | None" = None):
        self.parent = parent
        self.values: dict[str, Any] = {}

    def find(self, key: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if key in scope.values:
                return scope.values[key]
            scope = scope.parent
        return None


class Place(NamedTuple):
    """Where the interpreter stands.

    Attributes:
      around: the scans around, outermost first.
      scope: records met so far.
      deltas: by record key, what to add at a site, for its derivative.
      silent: at a value named by checkpoint_name, which is read and not declared again.
    """

    around: tuple[Iteration, ...]
    scope: Scope
    deltas: dict[str, Array]
    silent: bool = False

    @property
    def path(self) -> Path:
        return tuple(iteration.piece for iteration in self.around)

    @property
    def cut(self) -> bool:
        """Whether a scan around runs in pieces, so that the sites inside must note which."""
        return any(iteration.cut for iteration in self.around)


def covers(found: Found, request: Request) -> bool:
    """Whether a site equation, perhaps with all its layers, has the visit that a `via` asks for."""
    name, path = request
    return found.name == name and contains(found.path, path)


def site_index(pieces: Path | None, layer: int | None, around: tuple[Iteration, ...]) -> tuple[Any, ...]:
    """The iteration of each loop around a site, outermost first (see `paths.site_path`)."""
    if pieces is None:
        index = [iteration.index for iteration in around]
    else:
        n_noted = sum(piece.scanned for piece in pieces)
        inner = iter(around[len(around) - n_noted :])
        index = [iteration.index for iteration in around[: len(around) - n_noted]]
        index += [piece.start + next(inner).index if piece.scanned else piece.start for piece in pieces]
    return (*index, layer) if layer is not None else tuple(index)


class Visit(NamedTuple):
    """One visit of a site."""

    ctx: Context
    path: Path
    mapped: tuple[int, ...]  # the axes of the value that enclosing vmaps map, outermost first, as `to_front` takes them

    @property
    def layer(self) -> frozenset[int]:
        """The layer of the visit, where it is known when tracing; empty inside a scan, whose body is every layer."""
        last = self.path[-1:]
        return frozenset(piece.start for piece in last if not piece.scanned)
