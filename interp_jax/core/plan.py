"""The data of one evaluation: what is wanted and edited, where the interpreter stands, and what it has recorded."""

from typing import Any, NamedTuple

import jax

from interp_jax.core.addresses import Target
from interp_jax.core.edits import Intervention
from interp_jax.core.walking import Found, Span

Array = jax.Array
Request = tuple[str, tuple[Span, ...]]  # a visit of a site whose value a later `via` reads


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

    def meets(self, spans: tuple[Span, ...]) -> bool:
        """Whether it may do something at a visit of the site."""
        early = bool(spans) and spans[-1].start + spans[-1].length <= self.intervention.since
        return not early and meets(spans, self.layers)


class Record(NamedTuple):
    """What the key of a record stands for. `want` is None for a value that only a `via` reads."""

    want: int | None
    name: str
    spans: tuple[Span, ...]
    mapped: tuple[int, ...]

    @property
    def key(self) -> str:
        # A string, since the keys of a dictionary that crosses jit and scan must sort.
        return f"{self.want}|{self.name}|{[tuple(span) for span in self.spans]}"


class Frame(NamedTuple):
    """A scan that is being evaluated, or one iteration taken out of it, whose index is static."""

    span: Span
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
      frames: the scans around, outermost first.
      scope: records met so far.
      deltas: by record key, what to add at a site, for its derivative.
      silent: at a value named by checkpoint_name, which is read and not declared again.
    """

    frames: tuple[Frame, ...]
    scope: Scope
    deltas: dict[str, Array]
    silent: bool = False

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(frame.span for frame in self.frames)

    @property
    def cut(self) -> bool:
        """Whether a scan around runs in pieces, so that the sites inside must note which."""
        return any(frame.cut for frame in self.frames)


def meets(spans: tuple[Span, ...], layers: frozenset[int] | None) -> bool:
    """Whether a visit of a site falls in `layers` (None: every layer)."""
    if layers is None:
        return True
    return bool(spans) and any(spans[-1].start <= k < spans[-1].start + spans[-1].length for k in layers)


def covers(found: Found, request: Request) -> bool:
    """Whether a site equation, perhaps with all its layers, has the visit that a `via` asks for."""
    name, spans = request
    return (
        found.name == name
        and len(found.spans) == len(spans)
        and all(
            a.start <= b.start and b.start + b.length <= a.start + a.length
            for a, b in zip(found.spans, spans, strict=True)
        )
    )


def site_index(loops: tuple[Span, ...] | None, layer: int | None, frames: tuple[Frame, ...]) -> tuple[Any, ...]:
    """The iteration of each loop around a site, outermost first (see `catalog.site_spans`)."""
    if loops is None:
        index = [frame.index for frame in frames]
    else:
        n_real = sum(span.real for span in loops)
        inner = iter(frames[len(frames) - n_real :])
        index = [frame.index for frame in frames[: len(frames) - n_real]]
        index += [span.start + next(inner).index if span.real else span.start for span in loops]
    return (*index, layer) if layer is not None else tuple(index)
