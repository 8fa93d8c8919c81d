"""Short automatic labels: the words on which a feature is most active, and which features tell the most.

    weight of word w for a feature:  p log(p / q)
    p: its share of the feature's strong firings, weighted by activation; q: its share of the text

The sum over words is how many nats the feature's firing tells about the word (a Kullback-Leibler divergence).
Where the word at the firing says little, the word before or after it is tried. Caveat: a label is a guess about
where a feature fires, not an explanation that was tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jax import Array
from jaxtyping import Float
import numpy as np

from interp_jax.explain.records.firings import Firings

STRONG = 0.3  # of the largest activation: weaker firings are often about something else
LIFT, LEAST = 4.0, 0.01  # a word belongs to a label if p / q and p are at least this
SHOWN = 4  # words of a label that are written out
RELATIONS = {"on": 0, "before": 1, "after": -1}


@dataclass(frozen=True)
class Label:
    """What a feature seems to be about.

    Attributes:
      relation: `"on"` these words, or `"before"` or `"after"` them.
      words: the words, weightiest first.
      coverage: the share of strong firings that these words account for.
      recall: the share of these words' occurrences on which it fires strongly.
      nats: what a strong firing tells about the word.
      whole: the share of strong firings that stand at the end of a word, where all of it has been read.
    """

    relation: str
    words: tuple[str, ...]
    coverage: float
    recall: float
    nats: float
    whole: float

    @property
    def score(self) -> float:
        """How well words describe a feature: high where it fires on them alone, and they are whole and rare."""
        return self.nats * self.coverage * self.recall**0.5 * self.whole

    def __str__(self) -> str:
        words = ", ".join(self.words[:SHOWN]) + (", …" if len(self.words) > SHOWN else "")
        return words if self.relation == "on" else f"{self.relation}: {words}"


@dataclass(frozen=True)
class Words:
    """The words of a tokenised text.

    Attributes:
      strings: the different words.
      ids: int32 `[sequence position]`, the word that each token is in; -1 at padding and special tokens.
      ordinal: int32 `[sequence position]`, the place of that word in `running`.
      running: int32 `[word]`, all words in their order; -1 between sequences.
      counts: int64 `[different word]`, how often each occurs.
    """

    strings: tuple[str, ...]
    ids: np.ndarray
    ordinal: np.ndarray
    running: np.ndarray
    counts: np.ndarray


def words(tokens: np.ndarray, mask: np.ndarray, strings: Sequence[str]) -> Words:
    """Joins tokens to words: a word begins with a space, a mark, or a letter after something that is no letter.

    Args:
      tokens: `[sequence position]`.
      mask: `[sequence position]`, False at padding and special tokens.
      strings: the text of every token of the vocabulary, with its space.

    Example:
      >>> import numpy as np
      >>> strings = [" L", "ily", " ran", "."]
      >>> found = words(np.array([[0, 1, 2, 3]]), np.ones((1, 4), bool), strings)
      >>> found.strings, found.ids.tolist()
      (('Lily', 'ran', '.'), [[0, 0, 1, 2]])
    """
    known: dict[str, int] = {}
    ids = np.full(tokens.shape, -1, np.int32)
    ordinal = np.full(tokens.shape, -1, np.int32)
    running: list[int] = []

    def close(row: int, start: int, end: int) -> None:
        text = "".join(strings[int(t)] for t in tokens[row, start:end]).strip() or "↵"
        ids[row, start:end] = known.setdefault(text, len(known))
        ordinal[row, start:end] = len(running)
        running.append(ids[row, start])

    begins = [not s[:1].isalnum() for s in strings]
    ends = [not s[-1:].isalnum() for s in strings]
    for row in range(tokens.shape[0]):
        start = None
        for position in range(tokens.shape[1] + 1):
            inside = position < tokens.shape[1] and bool(mask[row, position])
            token = int(tokens[row, position]) if inside else -1
            if start is not None and (not inside or begins[token] or ends[int(tokens[row, position - 1])]):
                close(row, start, position)
                start = None
            if inside and start is None:
                start = position
        running.append(-1)
    in_order = np.array(running, np.int32)
    counts = np.bincount(in_order[in_order >= 0], minlength=len(known))
    return Words(tuple(known), ids, ordinal, in_order, counts)


def label(found: Firings, text: Words, feature: int) -> Label:
    """The label of one feature.

    Raises:
      ValueError: the feature never fires.
    """
    places, values = found.of(feature)
    if not len(places):
        raise ValueError(f"label: feature {feature} never fires in this text")
    flat = text.ordinal.reshape(-1)
    ordinals, strong = flat[places], values >= STRONG * values.max()
    ends = np.append(flat[1:], -1)[places] != ordinals
    whole = float(np.average(ends, weights=np.where(strong, values, 0)))
    candidates = (_weigh(relation, ordinals, values, strong, whole, text) for relation in RELATIONS)
    # A neighbour must say clearly more than the word itself.
    return max(candidates, key=lambda c: c.score * (1.0 if c.relation == "on" else 0.5))


def _weigh(
    relation: str,
    ordinals: np.ndarray,
    values: np.ndarray,
    strong: np.ndarray,
    whole: float,
    text: Words,
) -> Label:
    related = text.running[np.clip(ordinals + RELATIONS[relation], 0, len(text.running) - 1)]
    strong = strong & (related >= 0)
    n, total = len(text.strings), np.maximum(text.counts, 1)
    p = np.bincount(related[strong], values[strong], minlength=n) / max(values[strong].sum(), 1e-12)
    gain = p * np.log(np.maximum(p, 1e-12) * total.sum() / total)
    order = np.argsort(-gain)
    best = order[(p[order] >= LEAST) & (p[order] * total.sum() >= LIFT * total[order])]
    best = best if len(best) else order[:1]
    recall = len(np.unique(ordinals[strong & np.isin(related, best)])) / total[best].sum()
    named = tuple(text.strings[i] for i in best)
    return Label(relation, named, float(p[best].sum()), float(recall), float(gain.sum()), whole)


def telling(
    found: Firings,
    text: Words,
    decoder: Float[np.ndarray | Array, "*several d_sae d_in"],
    *,
    n: int = 12,
    least_firings: int = 30,
    most: float = 0.1,
) -> list[tuple[int, Label]]:
    """The features whose labels say the most, all different: `(feature, label)`, best first.

    Args:
      found: from `firings`.
      text: from `words`.
      decoder: a dictionary's `W_dec`, rows of any norm, `[d_sae d_in]`, or of several sites or layers; a feature whose
        row is close to that of a better one is left out, as is one whose label shares a word with it.
      n: how many, at most.
      least_firings: features that fire on fewer tokens are left out.
      most: so are those that fire on a larger share of them.
    """
    decoder = directions(np.asarray(decoder, np.float32))
    scored = []
    for feature in np.flatnonzero((found.counts >= least_firings) & (found.densities <= most)):
        named = label(found, text, int(feature))
        several = 1.0 + 0.3 * min(len(named.words) - 1, 4)  # a class of words says more than one word does
        scored.append((named.score * several, int(feature), named))
    chosen: list[tuple[int, Label]] = []
    seen: set[str] = set()
    for _, feature, named in sorted(scored, key=lambda s: (-s[0], s[1])):
        near = any(decoder[feature] @ decoder[other] > 0.6 for other, _ in chosen)
        said = {word.casefold() for word in named.words}
        if near or said & seen:
            continue
        chosen.append((feature, named))
        seen |= said
        if len(chosen) == n:
            break
    return chosen


def directions(W_dec: np.ndarray) -> np.ndarray:
    """What each feature writes, to all sites or layers side by side, at unit norm: `[feature d]`."""
    rows = np.moveaxis(W_dec, -2, 1 if W_dec.ndim == 4 else 0)  # [layer to d_sae d] is of features of every layer
    rows = rows.reshape(-1, W_dec[..., 0, :].size // (len(W_dec) if W_dec.ndim == 4 else 1))
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-8)
