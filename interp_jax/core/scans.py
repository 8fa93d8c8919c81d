"""How the interpreter evaluates a scan.

A scan with a site of which one layer is edited or wanted is cut into pieces around that layer, which is evaluated by
itself: the layers before it stay as they are (a shared prefix under vmap), and those after the last wanted one are
left out where nothing else needs them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core.interpreter import Interpreter
from interp_jax.core.jaxprs import closed, scan_counts
from interp_jax.core.paths import Path, Piece
from interp_jax.core.plan import Iteration, Place, Request, covers
from interp_jax.core.walking import walk


def scan(
    interp: Interpreter,
    eqn: Any,
    values: list[Any],
    place: Place,
    mask: list[bool],
    pending: frozenset[Request],
) -> list[Any]:
    """The rule of a scan (see `control_flow`)."""
    params, length = eqn.params, eqn.params["length"]
    n_consts, n_carry = scan_counts(eqn)
    consts, carry, xs = values[:n_consts], values[n_consts : n_consts + n_carry], values[n_consts + n_carry :]
    carry_mask, ys_mask = mask[:n_carry], mask[n_carry:]
    whole = pieces = _pieces(*_cuts(interp, eqn, place), length, reverse=params["reverse"])
    reads = _reads_after(interp, eqn, place, pieces, pending)
    if not any(mask):
        while len(pieces) > 1 and not _asked(interp, eqn, place, pieces[-1], reads[-1]):
            pieces, reads = pieces[:-1], reads[:-1]
    interp.log.cut(eqn, place.path, pieces, whole[len(pieces) :])
    ys_pieces = []
    for piece, read_later in zip(pieces, reads, strict=True):
        last = piece is pieces[-1]
        if piece.scanned:
            carry, ys = _run_piece(interp, eqn, piece, consts, carry, xs, place, ys_mask)
        else:
            iteration = Iteration(piece, piece.start, cut=True)
            needed = [*(carry_mask if last else [True] * n_carry), *ys_mask]
            here = place._replace(around=(*place.around, iteration))
            sliced = [jax.lax.index_in_dim(x, piece.start, 0, keepdims=False) for x in xs]
            outs = interp.eval(params["jaxpr"], [*consts, *carry, *sliced], here, needed, read_later)
            carry, ys = outs[:n_carry], [None if y is None else y[None] for y in outs[n_carry:]]
        ys_pieces.append((piece.start, ys))
    ordered = [ys for _, ys in sorted(ys_pieces, key=lambda piece: piece[0])]
    joined = (
        [
            (parts[0] if len(parts) == 1 else jnp.concatenate(parts)) if need else None
            for need, parts in zip(ys_mask, zip(*ordered, strict=True), strict=True)
        ]
        if ys_mask
        else []
    )
    return [*carry, *joined]


def _run_piece(interp, eqn, piece: Piece, consts, carry, xs, place: Place, ys_mask) -> tuple[list[Any], list[Any]]:
    """Scans over some of the iterations. Deltas of the sites inside go in as scanned inputs, captures come out so."""
    whole = piece.length == eqn.params["length"]
    path = (*place.path, piece)
    found = {(f.name, _prefix(f.path, path)) for f in walk(eqn.params["jaxpr"], path) if interp.wanted(f)}
    deltas = {
        key: delta
        for key, delta in place.deltas.items()
        if (interp.records[key].name, _prefix(interp.records[key].path, path)) in found
    }

    def body(carry: Any, scanned: Any) -> Any:
        index, here, deltas = scanned
        if not whole:
            here = [jax.lax.dynamic_index_in_dim(x, index, keepdims=False) for x in xs]
        inside = place._replace(around=(*place.around, Iteration(piece, index, cut=not whole)), deltas=deltas)
        needed = [True] * len(carry) + ys_mask
        outs, records = interp.enter(eqn.params["jaxpr"], [*consts, *carry, *here], inside, needed, frozenset())
        return outs[: len(carry)], (outs[len(carry) :], records)

    # A part of the weights would be a copy of them at every call: a piece takes those of its layers out one by one.
    carry, (ys, records) = jax.lax.scan(
        body,
        list(carry),
        (jnp.arange(piece.start, piece.start + piece.length), xs if whole else [], deltas),
        length=piece.length,
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    place.scope.values.update(records)
    return carry, ys


def _prefix(path: Path, around: Path) -> Path:
    """The path of a site up to the one that the innermost of `around` stands for."""
    n_scanned = sum(piece.scanned for piece in around)
    for place, piece in enumerate(path):
        n_scanned -= piece.scanned
        if n_scanned == 0:
            return path[: place + 1]
    return path


def _cuts(interp: Interpreter, eqn: Any, place: Place) -> tuple[set[int], set[int]]:
    """The iterations to take out of a scan, of the layers that are edited, wanted or read singly; and those before
    which it is cut in two, where an edit begins."""
    whole = Piece(0, eqn.params["length"], True)
    cuts, starts = set[int](), set[int]()
    for found in walk(eqn.params["jaxpr"], (*place.path, whole)):
        noted = found.params["pieces"]
        innermost = found.params["layer"] is None and found.depth == len(place.around) + 1
        if found.copy or not innermost or (noted and not noted[-1].scanned):
            continue
        start = found.path[-1].start
        cuts |= {layer - start for layer in interp.static_layers(found.name)}
        starts |= {layer - start for layer in interp.starts(found.name)}
    return cuts & set(range(whole.length)), starts & set(range(1, whole.length))


def _pieces(cuts: set[int], starts: set[int], length: int, *, reverse: bool) -> list[Piece]:
    """The pieces into which the cuts divide a scan, in the order in which they run."""
    if length == 0:
        return [Piece(0, 0, True)]
    bounds = sorted({0, *cuts, *(cut + 1 for cut in cuts), *starts, length} & set(range(length + 1)))
    pieces = [Piece(a, b - a, a not in cuts) for a, b in zip(bounds, bounds[1:], strict=False)]
    return pieces[::-1] if reverse else pieces


def _reads_after(
    interp: Interpreter, eqn: Any, place: Place, pieces: list[Piece], pending: frozenset[Request]
) -> list[frozenset[Request]]:
    """For each piece of a scan, what edits after it read."""
    reads = [pending]
    for piece in reversed(pieces[1:]):
        found = walk(eqn.params["jaxpr"], (*place.path, piece))
        reads.append(reads[-1].union(*(interp.requests(f) for f in found)))
    return reads[::-1]


def _asked(interp: Interpreter, eqn: Any, place: Place, piece: Piece, pending: frozenset[Request]) -> bool:
    """Whether something in a piece of a scan is captured or read later, or has an effect."""
    found = walk(eqn.params["jaxpr"], (*place.path, piece))
    return bool(closed(eqn.params["jaxpr"]).effects) or any(
        interp.wanted(f) or any(covers(f, request) for request in pending) for f in found
    )
