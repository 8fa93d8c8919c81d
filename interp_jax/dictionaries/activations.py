"""Where training batches come from: activations in memory, or harvested from a model while training goes on.

Both are iterators of batches of one shape. A batch has the structure of what it is taken from: one array for one
site, a pair for a transcoder, a dict for several sites at once, `[n layer d_in]` for an address of every layer.
Harvested activations pass through a buffer that is shuffled and half emptied in turn, since the tokens of one text
resemble one another (Bricken et al. 2023, Towards Monosemanticity, who shuffle all of them).

Two things are told apart: padding, which the model does not attend to (`mask`, as `models.tokenize` gives it), and
special tokens, which it attends to and nothing is trained on (`skip`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from interp_jax.core import capture
from interp_jax.masking import Shaped, attending, counted, sequences, skipped

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens, what is attended to, what is trained on: [batch position]


@dataclass
class Batches(Iterator[Any]):
    """An iterator of batches that knows where they were read.

    Attributes:
      batches: the iterator.
      where: the addresses that the batches were read at, in the batches' structure, or None where nobody said.
    """

    batches: Iterator[Any]
    where: Any = None

    def __next__(self) -> Any:
        return next(self.batches)

    def map(self, fn: Callable[[Any], Any]) -> "Batches":
        """The same batches, each changed by a function such as a `Scaling`.

        Example:
          >>> import numpy as np
          >>> from interp_jax import dictionaries
          >>> batches = dictionaries.shuffled(np.ones((8, 2)), 4, where="resid").map(lambda x: 2 * x)
          >>> float(next(batches)[0, 0]), batches.where
          (2.0, 'resid')
        """
        return Batches(map(fn, self.batches), self.where)


def shuffled(x: Any, batch_size: int, *, seed: int = 0, start: int = 0, where: Any = None) -> Batches:
    """Batches of activations in memory, in a new order each time round, without end.

    Args:
      x: `[n d_in]`, or a pytree of arrays whose rows belong together, such as a pair of inputs and targets. A list is
        one array.
      batch_size: rows in a batch; what is left of a round is not used.
      seed: of the orders.
      start: the first batch, so that a run that was cut off goes on: batch `i` depends on `seed` and `i` alone.
      where: the address that `x` was captured at, for the dictionary to remember; for a pair both.

    Raises:
      ValueError: fewer rows than one batch, arrays without rows or of different lengths, a start below 0.

    Example:
      >>> import numpy as np
      >>> from interp_jax import dictionaries
      >>> batches = dictionaries.shuffled(np.arange(10.0)[:, None], 4)
      >>> next(batches).shape, next(batches).shape
      ((4, 1), (4, 1))
    """
    check_numbers("shuffled", 0, start=start)
    x = jax.tree.map(lambda leaf: leaf if isinstance(leaf, Shaped) else np.asarray(leaf), x, is_leaf=_is_list)
    if any(leaf.ndim == 0 for leaf in jax.tree.leaves(x)):
        raise ValueError("shuffled: a number has no rows; give activations [n d_in]")
    lengths = {len(leaf) for leaf in jax.tree.leaves(x)}
    if len(lengths) != 1:
        raise ValueError(f"shuffled: arrays of {sorted(lengths)} rows; give arrays whose rows belong together")
    n = lengths.pop()
    if batch_size < 1 or n < batch_size:
        raise ValueError(f"shuffled: {n} rows for batches of {batch_size}; give more, or a smaller batch_size")
    return Batches(_shuffled(x, n, batch_size, seed, start), where)


def _is_list(x: Any) -> bool:
    return isinstance(x, list)


def check_numbers(name: str, least: int, **numbers: Any) -> None:
    """Raises ValueError, in the name of `name`, for what is no whole number of at least `least`."""
    for key, number in numbers.items():
        if not isinstance(number, int | np.integer) or number < least:
            raise ValueError(f"{name}: {key}={number!r} must be a whole number, at least {least}")


def _shuffled(x: Any, n: int, batch_size: int, seed: int, start: int) -> Iterator[Any]:
    a_round, at = divmod(start, n // batch_size)
    while True:
        order = np.random.default_rng((seed, a_round)).permutation(n)
        for i in range(at, n // batch_size):
            rows = order[i * batch_size : (i + 1) * batch_size]
            yield jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf[rows]), x)
        a_round, at = a_round + 1, 0


def harvest(
    f: Callable[..., Any],
    where: Any,
    model: Any,
    tokens: Any,
    *,
    mask: Any = None,
    skip: Any = (),
    batch_size: int,
    epochs: int | None = None,
    start: int = 0,
    n_sequences: int = 32,
    n_buffered: int = 32,
    seed: int = 0,
) -> Batches:
    """Batches of a model's activations, made while they are used, without end unless `epochs` is given.

    Only the buffer is ever in memory.

    Args:
      f: `(model, tokens [batch position])`, with sites; where there is padding, it is also given the `mask`, as the
        keyword `attention_mask`, if it takes one, as `models.forward` does. An `f` that takes none attends to padding:
        it wants it on the right, where a causal model does not look.
      where: an address, or a pytree of addresses that batches take their structure from: `("blocks.2.mlp_in",
        "blocks.2.mlp_out")` for a transcoder, `{"a": ..., "b": ...}` for several sites at once. An address of every
        layer gives `[n layer d_in]`; a head axis is flattened to head d_head.
      model: a pytree.
      tokens: int `[sequence position]`, read in a new order each time round; or an iterable of chunks, read once, such
        as a streamed data set, each `(tokens, mask)` or tokens alone, `[batch position]`.
      mask: bool `[sequence position]`, False at padding, as `models.tokenize` gives it: the model does not attend to
        it, and nothing is trained on it.
      skip: token ids, one or several, that the model attends to and nothing is trained on: `skip=tokenizer.bos_id`,
        whose activations are often far larger than the others. None is none.
      batch_size: activations in a batch.
      epochs: how many times the tokens are read.
      start: the first batch that is given, so that a run that was cut off goes on: batch `i` is the same whatever the
        start, and the model is not run on what comes before.
      n_sequences: sequences that the model runs at once, where `tokens` is an array.
      n_buffered: batches that the buffer holds.
      seed: of the orders.

    Returns:
      An iterator of batches, float32 or the site's dtype, which knows `where` it reads.

    Raises:
      ValueError: a number below 1, tokens that are no integers `[sequence position]`, a mask of another shape, one with
        padding before a token where `f` takes none, or one that is bound to `f` and not given here; fewer tokens to
        train on than one batch; (at the first batch) a site that is not one vector for each token, or an address that
        names no site (near names follow).

    Example:
      >>> import jax, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> W = jax.random.normal(jax.random.key(0), (10, 8))
      >>> f = lambda W, tokens: ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")) @ W.T
      >>> tokens = jax.random.randint(jax.random.key(1), (64, 6), 0, 10)
      >>> next(dictionaries.harvest(f, "resid", W, tokens, batch_size=100)).shape
      (100, 8)
      >>> [len(x) for x in dictionaries.harvest(f, "resid", W, tokens, batch_size=100, epochs=1)]
      [100, 100, 100]
    """
    rounds = 1 if epochs is None else epochs
    check_numbers("harvest", 1, batch_size=batch_size, n_buffered=n_buffered, n_sequences=n_sequences, epochs=rounds)
    check_numbers("harvest", 0, start=start)
    whole: Any = sequences("harvest", tokens, mask)
    if whole is None and (not isinstance(tokens, Iterable) or _are_arrays(tokens)):
        raise ValueError("harvest: tokens are one array, its mask is mask=mask; or a list or iterator of chunks")
    if whole is None and (mask is not None or epochs not in (None, 1)):
        raise ValueError("harvest: chunks are read once, each with its own mask; leave out mask= and epochs=")
    left_out = skipped("harvest", skip)
    if whole is None:
        chunks = _chunks(tokens, left_out)
    else:
        wanted = counted(whole[0], whole[1], left_out)
        _check_enough(int(wanted.sum()), batch_size)
        chunks = _rounds((*whole, wanted), n_sequences, seed, epochs)
    addresses, structure = jax.tree.flatten(where)
    # The reducer sees the value of one layer, so that a layer axis can be told from a batch of as many sequences.
    read = capture(f, dict.fromkeys(addresses, _flat), output=False)
    options = attending("harvest", f, None if whole is None else whole[1])

    def run(some: np.ndarray, real: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
        captured = read(model, jnp.asarray(some), **options(real))
        return [_rows(captured[address], address, some.size)[np.flatnonzero(wanted)] for address in addresses]

    numbered = ((n, partial(run, *chunk)) for chunk in chunks if (n := int(chunk[2].sum())))
    batches = _buffered(numbered, batch_size, n_buffered, seed, start)
    return Batches((jax.tree.unflatten(structure, list(map(jnp.asarray, leaves))) for leaves in batches), where)


def _are_arrays(tokens: Any) -> bool:
    """Whether these are tokens beside their mask, as `models.tokenize` gives them, which are no chunks."""
    return isinstance(tokens, tuple) and any(isinstance(part, Shaped) for part in tokens)


def _chunks(tokens: Iterable[Any], skip: list[int]) -> Iterator[Chunk]:
    for chunk in tokens:
        pair = chunk if isinstance(chunk, tuple) and len(chunk) == 2 else (chunk, None)
        some, real = sequences("harvest", *pair, chunk=True)
        yield some, real, counted(some, real, skip)


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


def _rounds(whole: Chunk, n_sequences: int, seed: int, epochs: int | None) -> Iterator[Chunk]:
    n, a_round = len(whole[0]), 0
    size = min(n_sequences, n)
    while epochs is None or a_round < epochs:
        order = np.random.default_rng((seed, a_round)).permutation(n)
        for at in range(0, n, size):
            # Filled up with the last sequence, so that the model is compiled for one shape; it does not count again.
            rows = np.pad(order[at : at + size], (0, max(0, at + size - n)), mode="edge")
            tokens, mask, wanted = (part[rows] for part in whole)
            wanted[n - at :] = False
            yield tokens, mask, wanted
        a_round += 1


def _buffered(
    chunks: Iterator[tuple[int, Callable[[], list[np.ndarray]]]],
    batch_size: int,
    n_buffered: int,
    seed: int,
    start: int,
) -> Iterator[list[np.ndarray]]:
    """Batches from `start` on of chunks, each the number of its rows and what makes them.

    The orders depend on these numbers alone. Up to `start` the buffer holds tickets, `(chunk, row)` each, and no chunk
    is made; then those that are still in it are.
    """
    rng = np.random.default_rng(seed)
    kept: dict[int, Callable[[], list[np.ndarray]]] = {}
    parts, n, given, seen, more, asleep = [], 0, 0, 0, True, start > 0
    while more:
        while n < batch_size * n_buffered and (more := (new := next(chunks, None)) is not None):
            if asleep:
                kept[seen] = new[1]
                parts.append([np.stack([np.full(new[0], seen), np.arange(new[0])], axis=1)])
            else:
                parts.append(new[1]())
            n, seen = n + new[0], seen + 1
        buffer = [np.concatenate(leaves) for leaves in zip(*parts, strict=True)]
        order = rng.permutation(n)
        n_given = n // batch_size if not more else max(1, n // batch_size // 2)
        if asleep and given + n_given > start:
            buffer, asleep = _made(buffer[0], kept), False
        for i in range(max(0, start - given), n_given):
            yield [leaf[order[i * batch_size : (i + 1) * batch_size]] for leaf in buffer]
        given += n_given
        parts = [[leaf[order[n_given * batch_size :]] for leaf in buffer]]
        n -= n_given * batch_size
        if asleep and more:
            kept = {chunk: kept[chunk] for chunk in np.unique(parts[0][0][:, 0]).tolist()}
    if not given:
        _check_enough(n, batch_size)


def _made(tickets: np.ndarray, chunks: dict[int, Callable[[], list[np.ndarray]]]) -> list[np.ndarray]:
    """The rows that tickets stand for, of each site."""
    order = np.argsort(tickets[:, 0], kind="stable")
    wanted, starts = np.unique(tickets[order, 0], return_index=True)
    rows = np.split(tickets[order, 1], starts[1:])
    made = [[leaf[row] for leaf in chunks[chunk]()] for chunk, row in zip(wanted.tolist(), rows, strict=True)]
    back = np.argsort(order, kind="stable")
    return [np.concatenate(leaves)[back] for leaves in zip(*made, strict=True)]


def _check_enough(n_tokens: int, batch_size: int) -> None:
    if n_tokens < batch_size:
        raise ValueError(
            f"harvest: {n_tokens} real tokens for batches of {batch_size}; give more, or a smaller batch_size"
        )
