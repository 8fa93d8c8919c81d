"""Where a site stands: its path through the loops around it.

A *loop* is a `lax.scan` or a Python loop over layers. A *piece* of a loop is some of its iterations, one after the
other: all of them, or those between the places where a transform cuts a scan. A *path* has one piece for each loop
around a site, outermost first; the last loop is the one whose iterations are the layers.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """Iterations `start` to `start + length` of one loop.

    `scanned` says whether a scan runs them. One iteration of a Python loop, or one that a transform has taken out of a
    scan, has length 1 and is not scanned.
    """

    start: int
    length: int
    scanned: bool

    @property
    def iterations(self) -> range:
        """The numbers of its iterations."""
        return range(self.start, self.start + self.length)


Path = tuple[Piece, ...]


def site_path(pieces: Path | None, layer: int | None, around: Sequence[Piece]) -> Path:
    """The path of a site, from the scans around its equation, outermost first.

    `pieces` is what a transform noted on the site when it cut a scan: it covers the innermost of the scans around. An
    outer transform may have cut these pieces again.
    """
    if pieces is None:
        path = list(around)
    else:
        n_noted = sum(piece.scanned for piece in pieces)
        path, inner = list(around[: len(around) - n_noted]), iter(around[len(around) - n_noted :])
        for noted in pieces:
            if not noted.scanned:
                path.append(noted)
                continue
            part = next(inner)
            path.append(Piece(noted.start + part.start, part.length, part.scanned))
    return (*path, Piece(layer, 1, False)) if layer is not None else tuple(path)


def overlap(a: Path, b: Path) -> bool:
    """Whether two sites have an iteration of all their loops in common."""
    return len(a) != len(b) or all(
        x.start < y.start + y.length and y.start < x.start + x.length for x, y in zip(a, b, strict=True)
    )


def contains(a: Path, b: Path) -> bool:
    """Whether every iteration of a path is one of another with as many loops."""
    return len(a) == len(b) and all(
        x.start <= y.start and y.start + y.length <= x.start + x.length for x, y in zip(a, b, strict=True)
    )


def meets(path: Path, layers: frozenset[int] | None) -> bool:
    """Whether a visit of a site falls in `layers` (None: every layer)."""
    if layers is None:
        return True
    return bool(path) and any(k in path[-1].iterations for k in layers)


def layers_text(layers: tuple[int, ...] | None) -> str:
    """The numbers of layers, in short."""
    if not layers:
        return "" if layers is None else "none"
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole and len(layers) > 1 else ",".join(map(str, layers))
