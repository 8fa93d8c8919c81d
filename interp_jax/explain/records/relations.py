"""How units are related: decoder rows that are alike, firings that go together, and tokens that they make likelier.

Pearson's r = (E[x y] - E[x] E[y]) / (s_x s_y)     over the tokens of rows that are held of both sites
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_jax import dictionaries
from interp_jax.explain.records.firings import Firings
from interp_jax.explain.records.labels import directions
from interp_jax.explain.records.records import Ranked, Records

N_RELATED = 10
BLOCK = 512  # units that are compared with all others at once
DENSE = 0.05  # share of activations above 0 from which on a dense product is the faster one


def nearest(rows: np.ndarray, n: int = N_RELATED) -> Ranked:
    """The rows whose cosine with each is largest: indices and cosines, `[row n]`, the row itself left out.

    Args:
      rows: float32 `[row d]`, of any norm.
      n: how many, at most one fewer than there are rows.

    Example:
      >>> import numpy as np
      >>> nearest(np.array([[1.0, 0], [1, 1], [0, -1]], np.float32), 1)[0].tolist()
      [[1], [0], [0]]
    """
    rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(rows), BLOCK):
        cosines = rows[start : start + BLOCK] @ rows.T
        np.fill_diagonal(cosines[:, start:], -np.inf)
        found.append(largest(cosines, min(n, len(rows) - 1)))
    return _joined(found)


def largest(values: np.ndarray, n: int) -> Ranked:
    """Indices and values of the n largest of each row, the largest first."""
    n = min(n, values.shape[1])
    some = np.argpartition(-values, n - 1, axis=1)[:, :n] if n else np.zeros((len(values), 0), int)
    order = np.argsort(-np.take_along_axis(values, some, 1), axis=1, kind="stable")
    some = np.take_along_axis(some, order, 1)
    return some.astype(np.int32), np.take_along_axis(values, some, 1).astype(np.float32)


def correlated(ours: Firings, theirs: Firings, mask: np.ndarray, *, itself: bool, n: int = N_RELATED) -> Ranked:
    """The units of `theirs` whose activations correlate most with each of ours: indices and Pearson's r, `[unit n]`.

    Args:
      ours, theirs: firings in the same rows.
      mask: bool `[sequence position]` of those rows, False where a token does not count.
      itself: whether they are the same units, of which none is compared with itself.
      n: how many.

    Returns:
      r is 0 with and of a unit that is constant there.
    """
    n_tokens = int(mask.sum())
    x, y = _matrix(ours), _matrix(theirs)
    (x_mean, x_deviation), (y_mean, y_deviation) = _moments(ours, n_tokens), _moments(theirs, n_tokens)
    found = []
    for start in range(0, x.shape[1], BLOCK):
        here = slice(start, start + BLOCK)
        product = x[:, here].T @ y
        product = product if isinstance(product, np.ndarray) else product.toarray()
        covariance = product / max(n_tokens, 1) - np.outer(x_mean[here], y_mean)
        r = covariance * np.outer(x_deviation[here], y_deviation)
        if itself:
            np.fill_diagonal(r[:, start:], -np.inf)
        found.append(largest(r, min(n, r.shape[1] - itself)))
    return _joined(found)


def cosines(ours: Records, theirs: Records, ids: np.ndarray) -> np.ndarray:
    """The cosine of the activations of each unit and of some of the others, over the rows that are held of both.

    Args:
      ours, theirs: of one pass.
      ids: `[unit n]`, for each of ours some of theirs.

    Returns:
      float32 `[unit n]`, 0 where either never fires there.
    """
    common = min(ours.held_rows, theirs.held_rows, key=len)
    x, y = (_matrix(_of_rows(one.held, np.isin(one.held_rows, common))) for one in (ours, theirs))
    found = np.zeros(ids.shape, np.float32)
    norms = [np.sqrt(np.asarray((m * m).sum(0)).ravel()) for m in (x, y)]
    for start in range(0, x.shape[1], BLOCK):
        product = x[:, start : start + BLOCK].T @ y
        product = product if isinstance(product, np.ndarray) else product.toarray()
        here = ids[start : start + BLOCK]
        lengths = norms[0][start : start + BLOCK, None] * norms[1][here]
        found[start : start + BLOCK] = np.take_along_axis(product, here, 1) / np.where(lengths > 0, lengths, 1)
    return found


def logits(
    rows: np.ndarray, effects: Callable[[Any], Any], n: int = N_RELATED
) -> tuple[Ranked, Ranked] | tuple[None, None]:
    """The tokens whose logits each row raises and lowers most: ids and values `[row n]`; None without a path there."""
    raised, lowered = [], []
    for start in range(0, len(rows), BLOCK):
        some = effects(rows[start : start + BLOCK])
        if some is None:
            return None, None
        some = np.asarray(some, np.float32)
        raised.append(largest(some, n))
        ids, values = largest(-some, n)
        lowered.append((ids, -values))
    return _joined(raised), _joined(lowered)


@dataclass(frozen=True)
class Writing:
    """What the units of a site write.

    Attributes:
      kind: "neurons", or the name of the dictionary's class.
      rows: float32 `[unit d]`, what one unit of each writes, to all sites or layers side by side; None if unknown.
      stream: float32 `[unit d_model]`, what that adds to the residual stream, of all layers together; None if unknown,
        as of a crosscoder, which reconstructs what others write.
    """

    kind: str = "neurons"
    rows: np.ndarray | None = None
    stream: np.ndarray | None = None

    @classmethod
    def of(cls, dictionary: Any, rows: Any = None) -> "Writing":
        """Of a dictionary, or of a site's own neurons, of which it is said what they write."""
        if dictionary is None:
            rows = None if rows is None else np.asarray(rows, np.float32)
            return cls("neurons", rows, rows)
        W_dec = np.asarray(dictionary.W_dec, np.float32)
        stream = W_dec if W_dec.ndim == 2 else None
        if isinstance(dictionary, dictionaries.CrossLayerTranscoder):
            stream = np.asarray(dictionary.causal(), np.float32).sum(1)
            stream = stream.reshape(-1, stream.shape[-1])
        return cls(type(dictionary).__name__, directions(W_dec), stream)


def relate(
    held: Mapping[str, Firings], rows: Mapping[str, np.ndarray], mask: np.ndarray
) -> dict[str, dict[str, Ranked]]:
    """Which units of all sites fire together: `{name: {other name: Ranked}}`.

    Args:
      held: name -> firings in the rows that are held of that site.
      rows: name -> those rows, int64 `[row]`, of which the fewer are among the more.
      mask: bool `[sequence position]`, of the whole corpus.
    """
    common = min(rows.values(), key=len)
    same = {name: _of_rows(firings, np.isin(rows[name], common)) for name, firings in held.items()}
    return {
        one: {other: correlated(same[one], same[other], mask[common], itself=one == other) for other in held}
        for one in held
    }


def _of_rows(firings: Firings, kept: np.ndarray) -> Firings:
    """The firings in some of the rows."""
    row, position = np.divmod(firings.places, firings.shape[1])
    here = kept[row]
    units = np.repeat(np.arange(len(firings.counts)), firings.counts)[here]
    places = (np.cumsum(kept) - 1)[row[here]] * firings.shape[1] + position[here]
    starts = np.searchsorted(units, np.arange(len(firings.counts) + 1))
    shape = (int(kept.sum()), firings.shape[1])
    return Firings(places.astype(np.int32), firings.values[here], starts, shape, firings.n_tokens)


def _matrix(firings: Firings) -> Any:
    """Activations `[token unit]`, sparse where most are 0."""
    from scipy import sparse

    shape = (firings.shape[0] * firings.shape[1], len(firings.counts))
    matrix = sparse.csc_array((firings.values, firings.places, firings.starts), shape)
    return matrix.toarray() if matrix.nnz > DENSE * shape[0] * shape[1] else matrix


def _moments(firings: Firings, n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each unit, and 1 / its standard deviation, 0 where it is constant; float32 `[unit]`."""
    units = np.repeat(np.arange(len(firings.counts)), firings.counts)
    values = firings.values.astype(np.float64)
    mean, square = (
        np.bincount(units, x, minlength=len(firings.counts)) / max(n_tokens, 1) for x in (values, values**2)
    )
    variance = square - mean**2
    constant = variance <= 1e-9 * np.maximum(square, 1e-30)
    return mean.astype(np.float32), np.where(constant, 0, 1 / np.sqrt(np.where(constant, 1, variance))).astype("f4")


def _joined(parts: list[Ranked]) -> Ranked:
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([values for _, values in parts])
