"""Captured values out of their records: what the pieces of a loop recorded, put together again."""

from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core.jaxprs import mesh_of
from interp_jax.core.paths import Path, Piece
from interp_jax.core.plan import Record, Want

Array = jax.Array


def assemble(wants: list[Want], records: dict[str, Record], values: dict[str, Any]) -> dict[str, Any]:
    """What was wanted, `[*loops ...]`, by its key: an array, or the pytree of arrays that its reducer makes."""
    parts: list[list[tuple[Path, Any]]] = [[] for _ in wants]
    for key, value in values.items():
        parts[records[key].want].append((records[key].path, value))  # type: ignore[index]  # only captured ones leave
    captured = {}
    for want, here in zip(wants, parts, strict=True):
        paths, trees = zip(*here, strict=True)

        def one(*arrays: Array, want: Want = want, paths: Any = paths) -> Array:
            return _assembled(want, list(zip(paths, arrays, strict=True)))

        captured[want.target.key] = jax.tree.map(one, *trees)
    return captured


def _assembled(want: Want, parts: list[tuple[Path, Array]]) -> Array:
    full = []
    with mesh_of(jax.typeof(parts[0][1])):
        for path, value in parts:
            for axis, piece in enumerate(path):
                if not piece.scanned:
                    value = jnp.expand_dims(value, axis)
            full.append((path, value))
        _check_shapes(want, full)
        joined = _join(full, 0)
        return joined if want.target.layer is None else jnp.squeeze(joined, len(parts[0][0]) - 1)


def _check_shapes(want: Want, parts: list[tuple[Path, Array]]) -> None:
    """Raises ValueError where layers differ in shape, so that there is no stack of them."""
    shapes = {value.shape[len(path) :]: path[-1].start for path, value in parts if path}
    if len(shapes) > 1:
        (a, first), (b, second) = list(shapes.items())[:2]
        raise ValueError(
            f"site {want.target.name!r} has shape {a} in layer {first} and {b} in layer {second}: capture single "
            "layers, or reduce them to one shape"
        )


def _join(parts: list[tuple[Path, Array]], axis: int) -> Array:
    if axis == len(parts[0][0]):
        return parts[0][1]
    groups: dict[Piece, list[Any]] = {}
    for part in sorted(parts, key=lambda part: part[0][axis].start):
        groups.setdefault(part[0][axis], []).append(part)
    joined = [_join(group, axis + 1) for group in groups.values()]
    return joined[0] if len(joined) == 1 else _stack(joined, axis)


def _stack(pieces: list[Array], axis: int) -> Array:
    """Concatenates. Each piece is written into one buffer as soon as it is known, where a concatenation would keep all
    of them until the last and then copy them. The buffer begins as copies of the first piece, of its sharding."""
    lengths = [piece.shape[axis] for piece in pieces]
    first = jax.lax.slice_in_dim(pieces[0], 0, 1, axis=axis)
    stack = jnp.broadcast_to(first, (*first.shape[:axis], sum(lengths), *first.shape[axis + 1 :]))
    for start, piece in zip(accumulate(lengths, initial=0), pieces, strict=False):
        stack = jax.lax.dynamic_update_slice_in_dim(stack, piece, start, axis)
    return stack
