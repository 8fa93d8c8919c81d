"""Where training batches come from: activations in memory, or harvested from a model while training goes on.

Both are iterators of batches of one shape. A batch has the structure of what it is taken from: one array for one
site, a pair for a transcoder, a dict for several sites at once, `[n layer d_in]` for an address of every layer.
Harvested activations pass through a buffer that is shuffled and half emptied in turn, since the tokens of one text
resemble one another (Bricken et al. 2023, Towards Monosemanticity, who shuffle all of them).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Int
import numpy as np

from interp_jax.core import capture

Sequences = tuple[Int[Array | np.ndarray, "batch position"], Bool[Array | np.ndarray, "batch position"]]


def shuffled(x: Any, batch_size: int, *, seed: int = 0, start: int = 0) -> Iterator[Any]:
    """Batches of activations in memory, in a new order each time round, without end.

    Args:
      x: `[n d_in]`, or a pytree of arrays whose rows belong together, such as a pair of inputs and targets.
      batch_size: rows in a batch; what is left of a round is not used.
      seed: of the orders.
      start: the first batch, so that a run that was cut off goes on: batch `i` depends on `seed` and `i` alone.

    Raises:
      ValueError: fewer rows than one batch, or arrays of different lengths.

    Example:
      >>> import numpy as np
      >>> from interp_jax import dictionaries
      >>> batches = dictionaries.shuffled(np.arange(10.0)[:, None], 4)
      >>> next(batches).shape, next(batches).shape
      ((4, 1), (4, 1))
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(x)}
    if len(lengths) != 1:
        raise ValueError(f"shuffled: arrays of {sorted(lengths)} rows; give arrays whose rows belong together")
    n = lengths.pop()
    if batch_size < 1 or n < batch_size:
        raise ValueError(f"shuffled: {n} rows for batches of {batch_size}; give more, or a smaller batch_size")
    return _shuffled(x, n, batch_size, seed, start)


def _shuffled(x: Any, n: int, batch_size: int, seed: int, start: int) -> Iterator[Any]:
    a_round, at = divmod(start, n // batch_size)
    while True:
        order = np.random.default_rng((seed, a_round)).permutation(n)
        for i in range(at, n // batch_size):
            rows = order[i * batch_size : (i + 1) * batch_size]
            yield jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf[rows]), x)
        a_round, at = a_round + 1, 0


def harvest(
    f: Callable[[Any, Array], Any],
    where: Any,
    model: Any,
    tokens: Int[Array | np.ndarray, "sequence position"] | Iterable[Sequences],
    *,
    mask: Bool[Array | np.ndarray, "sequence position"] | None = None,
    batch_size: int,
    n_sequences: int = 32,
    n_buffered: int = 32,
    seed: int = 0,
) -> Iterator[Any]:
    """Batches of a model's activations, made while they are used: only the buffer is ever in memory.

    Args:
      f: `(model, tokens [batch position])`, with sites.
      where: an address, or a pytree of addresses that batches take their structure from: `("blocks.2.mlp_in",
        "blocks.2.mlp_out")` for a transcoder, `{"a": ..., "b": ...}` for several sites at once. An address of every
        layer gives `[n layer d_in]`; a head axis is flattened to head d_head.
      model: a pytree.
      tokens: `[sequence position]`, read in a new order each time round, without end; or an iterable of `(tokens,
        mask)`, `[batch position]` of one shape, read once, such as a streamed data set.
      mask: `[sequence position]`, False at padding and special tokens: they are left out.
      batch_size: activations in a batch.
      n_sequences: sequences that the model runs at once, where `tokens` is an array.
      n_buffered: batches that the buffer holds.
      seed: of the orders.

    Returns:
      An iterator of batches, float32 or the site's dtype, on the host's or the device's side as the model's are.

    Raises:
      ValueError: (at the first batch) fewer real tokens than one batch, a site that is not one vector for each token,
        or an address that names no site (near names follow).

    Example:
      >>> import jax, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> W = jax.random.normal(jax.random.key(0), (10, 8))
      >>> f = lambda W, tokens: ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")) @ W.T
      >>> tokens = jax.random.randint(jax.random.key(1), (64, 6), 0, 10)
      >>> next(dictionaries.harvest(f, "resid", W, tokens, batch_size=100)).shape
      (100, 8)
    """
    if batch_size < 1 or n_buffered < 1:
        raise ValueError(f"harvest: batch_size={batch_size} and n_buffered={n_buffered} must be at least 1")
    addresses, structure = jax.tree.flatten(where)
    # The reducer sees the value of one layer, so that a layer axis can be told from a batch of as many sequences.
    read = jax.jit(capture(f, dict.fromkeys(addresses, _flat), output=False))
    if hasattr(tokens, "shape"):
        tokens = np.asarray(tokens)
        mask = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask)
        _check_enough(int(mask.sum()), batch_size)
        tokens = _rounds(tokens, mask, n_sequences, seed)

    def activations() -> Iterator[list[np.ndarray]]:
        for some, real in tokens:
            captured = read(model, jnp.asarray(some))
            keep = np.flatnonzero(np.asarray(real))
            yield [_rows(captured[address], address, np.size(real))[keep] for address in addresses]

    for batch in _buffered(activations(), batch_size, n_buffered, seed):
        yield jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in batch])


def _flat(value: Array) -> Array:
    """`[batch position *vector]` as `[token d]`."""
    return value.reshape(value.shape[0] * value.shape[1], -1) if value.ndim > 2 else value


def _rows(captured: Array, address: str, n_tokens: int) -> np.ndarray:
    """`[token d]`, or `[layer token d]` as `[token layer d]`."""
    rows = np.asarray(captured)
    rows = np.moveaxis(rows, 0, 1) if rows.ndim == 3 else rows
    if rows.ndim not in (2, 3) or len(rows) != n_tokens:
        raise ValueError(
            f"harvest: site {address!r} is not one vector for each token; name a site with the axes batch, position "
            "and one or two more, such as blocks.0.resid_post"
        )
    return rows


def _rounds(tokens: np.ndarray, mask: np.ndarray, n_sequences: int, seed: int) -> Iterator[Sequences]:
    size, a_round = min(n_sequences, len(tokens)), 0
    while True:
        order = np.random.default_rng((seed, a_round)).permutation(len(tokens))
        for at in range(0, len(tokens), size):
            rows = order[at : at + size]
            short = size - len(rows)  # filled up, so that the model is compiled for one shape
            yield np.pad(tokens[rows], ((0, short), (0, 0)), mode="edge"), np.pad(mask[rows], ((0, short), (0, 0)))
        a_round += 1


def _buffered(
    activations: Iterator[list[np.ndarray]], batch_size: int, n_buffered: int, seed: int
) -> Iterator[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    parts, n, given, more = [], 0, 0, True
    while more:
        while n < batch_size * n_buffered and (more := (new := next(activations, None)) is not None):
            parts.append(new)
            n += len(new[0])
        buffer = [np.concatenate(leaves) for leaves in zip(*parts, strict=True)]
        order = rng.permutation(n)
        n_given = n // batch_size if not more else max(1, n // batch_size // 2)
        for i in range(n_given):
            yield [leaf[order[i * batch_size : (i + 1) * batch_size]] for leaf in buffer]
        given += n_given
        parts = [[leaf[order[n_given * batch_size :]] for leaf in buffer]]
        n -= n_given * batch_size
    if not given:
        _check_enough(n, batch_size)


def _check_enough(n_tokens: int, batch_size: int) -> None:
    if n_tokens < batch_size:
        raise ValueError(
            f"harvest: {n_tokens} real tokens for batches of {batch_size}; give more, or a smaller batch_size"
        )
