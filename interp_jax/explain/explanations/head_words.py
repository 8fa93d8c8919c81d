"""An attention head explained in words, from a survey of a corpus, and how well the words say where it looks elsewhere.

An explanation is one sentence of a small language: from which tokens a head looks, to which place (itself, the token
before, the same token earlier, what came after it, the last few tokens, anywhere), at which tokens there. Of all such
sentences the one is taken that correlates most with where the head looks in some of the survey's texts; its examples
alone would not do, since they are chosen for their peaks. Said of another text, it is a prediction of the whole
pattern, so that it can be wrong:

    predicted[q, k] = from(q) place(q, k) at(k) / sum over k;    score = Pearson's r with attention, over all q and k

and the probability that a key drawn by attention is predicted above one drawn by chance (AUC). The first token of a
text, on which heads rest, is left out, as in `heads.survey` (Luger et al. 2026, "HeadVis").
Caveat: where a head looks is not what it does; what it writes is said beside it, and not tested here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import itertools
from typing import Any, NamedTuple

import numpy as np

from interp_jax.explain.records.labels import LEAST, LIFT
from interp_jax.heads import Survey

FEW = 8  # tokens that "the last few" are
SHOWN = 5  # words that are written out
WORDS = 24  # of a list, at most
COPIES = 0.5  # of a head's examples: if it writes what it looks at in so many, that is said
Where = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # tokens, queries `[q 1]`, keys `[k]` -> bool


def _earlier_equal(tokens: np.ndarray, q: np.ndarray, k: np.ndarray) -> np.ndarray:
    return (tokens[:, :, None] == tokens[:, None, :]) & (k < q)


def _after_equal(tokens: np.ndarray, q: np.ndarray, k: np.ndarray) -> np.ndarray:
    before = np.concatenate([np.full_like(tokens[:, :1], -1), tokens[:, :-1]], axis=1)
    return (tokens[:, :, None] == before[:, None, :]) & (k < q)


PLACES: dict[str, Where] = {  # as they are said, after "looks"; the plainest first
    "anywhere before": lambda tokens, q, k: k < q,
    "at itself": lambda tokens, q, k: k == q,
    "at the token before": lambda tokens, q, k: k == q - 1,
    "two tokens back": lambda tokens, q, k: k == q - 2,
    "three tokens back": lambda tokens, q, k: k == q - 3,
    f"at the last {FEW} tokens": lambda tokens, q, k: (k <= q) & (k > q - FEW),
    "at the same token earlier": _earlier_equal,
    "at what came after the same token": _after_equal,
}
KINDS = {"at itself": "self", "at the token before": "previous", "at what came after the same token": "induction"}
CLASSES: dict[str, Callable[[str], bool]] = {
    "a capitalised word": lambda text: text.strip()[:1].isupper(),
    "a mark": lambda text: bool(text.strip()) and not any(c.isalnum() for c in text),
    "a number": lambda text: text.strip().isdigit(),
    "a piece of a word": lambda text: text[:1].isalpha(),
}


class Tokens(NamedTuple):
    """Some tokens of a vocabulary: bool `[d_vocab]`, and what they are called."""

    among: np.ndarray
    text: str


@dataclass(frozen=True, eq=False)
class HeadExplanation:
    """What a head does, in words.

    Attributes:
      layer, head: which.
      place: one of `PLACES`, where it looks.
      at, of: the tokens that it looks at, and from which; None: any.
      share: of its attention, what does not go to the first token.
      score: the survey's score of the place ("previous" and such), or None where it has none.
      writes: words that it makes likelier, the most often first.
      copies: the share of examples in which it writes what it looks at.

    Example:
      >>> import jax, interp_jax as ij
      >>> from interp_jax import explain, heads, models
      >>> model, tokenizer = models.load("microworld")
      >>> texts = jax.random.randint(jax.random.key(0), (8, 12), 3, 641)
      >>> found = heads.survey(models.forward)(model, [texts])
      >>> strings = tokenizer.to_str_tokens(range(tokenizer.d_vocab))
      >>> pattern = ij.capture(models.forward, "blocks.0.attn.pattern", output=False)(model, texts)
      >>> here = pattern["blocks.0.attn.pattern"][:, 1]
      >>> one = explain.explain_head(found, 0, 1, here, texts, strings)
      >>> str(one).split(" (")[0], explain.score_head(one, here, texts).correlation > 0.5
      ('looks at itself', True)
    """

    layer: int
    head: int
    place: str
    at: Tokens | None
    of: Tokens | None
    share: float
    score: float | None
    writes: tuple[str, ...]
    copies: float

    def predict(self, tokens: Any, mask: Any = None) -> np.ndarray:
        """Where the head looks in texts, as the words have it.

        Args:
          tokens: int `[text position]`.
          mask: bool `[text position]`, False at padding.

        Returns:
          float32 `[text query key]`; each row is spread evenly over the keys that are meant, and is zero where none is,
          or the query is not.
        """
        tokens = np.asarray(tokens)
        return _predicted(self.place, self.at, self.of, tokens, _counted(tokens, mask))

    def __str__(self) -> str:
        said = f"looks {self.place}"
        said = said if self.at is None else f"{said} where it is {self.at.text}"
        said = said if self.of is None else f"from {self.of.text}: {said}"
        said = said if self.score is None else f"{said} ({self.score:.2f} of its attention where there is one)"
        if self.writes:
            said += "; writes " + ("what it looks at" if self.copies >= COPIES else _listed(self.writes))
        return f"{said}; {1 - self.share:.0%} rests on the first token"


class HeadScore(NamedTuple):
    """How well an explanation says where a head looks: Pearson's r with its 95 % interval over texts, and the AUC,
    which is 0.5 by chance and below 1 where a head looks at several keys alike, since they are as likely as each other.
    """

    correlation: float
    low: float
    high: float
    auc: float


def explain_head(
    survey: Survey,
    layer: int,
    head: int,
    pattern: Any,
    tokens: Any,
    strings: Sequence[str],
    *,
    mask: Any = None,
    written: Mapping[tuple[int, int], Sequence[str]] | None = None,
) -> HeadExplanation:
    """The sentence that says best where a head looks.

    Args:
      survey: from `heads.survey`.
      layer, head: which head.
      pattern: float `[text query key]`, the head's attention in the first texts of the survey.
      tokens: int `[sequence position]`, the texts of the survey in their order.
      strings: the text of every token of the vocabulary.
      mask: bool `[sequence position]`, False at padding.
      written: the words that the head makes likelier, by (sequence, position) of its examples, as `describe_head` of
        `report` takes them.

    Raises:
      ValueError: a head that the survey does not have, texts that are not those of the survey, a pattern that is not
        theirs, or a head that looks at nothing but the first token.
    """
    shape, tokens = survey.share.shape, np.asarray(tokens)
    if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
        raise ValueError(f"explain_head: head {layer}.{head} of {shape[0]} layers of {shape[1]} heads")
    if len(tokens) != survey.n_sequences:
        raise ValueError(f"explain_head: {len(tokens)} texts for a survey of {survey.n_sequences}; give those it read")
    counted = _counted(tokens, mask)
    known = np.bincount(tokens[counted], minlength=len(strings)) / counted.sum()
    n = len(pattern)
    seen, pairs = _seen("explain_head", pattern, tokens[:n], counted[:n])
    if not seen.any():
        raise ValueError(
            f"explain_head: head {layer}.{head} looks at the first token alone: there is nothing to explain"
        )
    given, asking = (np.bincount(tokens[:n].ravel(), seen.sum(axis).ravel(), minlength=len(strings)) for axis in (1, 2))
    classes = [Tokens(np.array([told(text) for text in strings]), name) for name, told in CLASSES.items()]
    ats, ofs = ([None, *classes, _typical(counts, known, strings)] for counts in (given, asking))
    told = seen[pairs]
    told = told - told.mean()
    best, chosen = -np.inf, (next(iter(PLACES)), None, None)
    for place, at, of in itertools.product(PLACES, ats, ofs):
        said = _predicted(place, at, of, tokens[:n], counted[:n])[pairs]
        size = np.sqrt(len(said) * float(said @ said) - float(said.sum()) ** 2)
        fit = float(said @ told) / size if size > 0 else -np.inf
        if fit > best:
            best, chosen = fit, (place, at, of)
    place, at, of = chosen
    scored = survey.scores[KINDS[place]][layer, head] if place in KINDS and at is None and of is None else np.nan
    words = [word for some in (written or {}).values() for word in some]
    return HeadExplanation(
        layer,
        head,
        place,
        at,
        of,
        float(survey.share[layer, head]),
        float(scored) if np.isfinite(scored) else None,
        tuple(sorted(dict.fromkeys(words), key=words.count, reverse=True))[:SHOWN],
        _copying(survey, layer, head, tokens, strings, written or {}),
    )


def score_head(
    explanation: HeadExplanation,
    pattern: Any,
    tokens: Any,
    *,
    mask: Any = None,
    seed: int = 0,
    n_resamples: int = 1000,
) -> HeadScore:
    """Compares what an explanation predicts with where a head looks in texts that it was not made from.

    Args:
      explanation: of this head; of another one, a control.
      pattern: float `[text query key]`, the head's attention.
      tokens: int `[text position]`.
      mask: bool `[text position]`, False at padding.
      seed: of the interval.
      n_resamples: how many times the texts are drawn.

    Raises:
      ValueError: a pattern that does not belong to the tokens.
    """
    tokens = np.asarray(tokens)
    seen, pairs = _seen("score_head", pattern, tokens, _counted(tokens, mask))
    said = np.where(pairs, explanation.predict(tokens, mask), 0)
    products = (pairs, said, seen, said * said, seen * seen, said * seen)
    sums = np.stack([x.sum((1, 2), dtype=np.float64) for x in products], -1)  # [text 6]
    drawn = np.random.default_rng(seed).integers(0, len(tokens), (n_resamples, len(tokens)))
    low, high = np.quantile(_from_sums(sums[drawn].sum(1)), [0.025, 0.975])
    above = 0.0
    for mine, given, real in zip(said, seen, pairs, strict=True):  # each key beside all that its query could look at
        over = (mine[:, :, None] > mine[:, None]) + 0.5 * (mine[:, :, None] == mine[:, None])
        shares = (over * real[:, None]).sum(-1) / np.maximum(real.sum(-1, keepdims=True), 1)
        above += float((given * shares).sum())
    whole = float(_from_sums(sums.sum(0)[None])[0])
    return HeadScore(whole, float(low), float(high), above / float(seen.sum()) if seen.any() else np.nan)


def _counted(tokens: np.ndarray, mask: Any) -> np.ndarray:
    """Which tokens count: real ones but for the first of each text."""
    real = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask, bool)
    return real & (np.cumsum(real, axis=1) > 1)


def _predicted(place: str, at: Tokens | None, of: Tokens | None, tokens: np.ndarray, counted: np.ndarray) -> np.ndarray:
    where = np.arange(tokens.shape[1])
    said = PLACES[place](tokens, where[:, None], where) & counted[:, :, None] & counted[:, None, :]
    said = said if at is None else said & at.among[tokens][:, None, :]
    said = said if of is None else said & of.among[tokens][:, :, None]
    return (said / np.maximum(said.sum(-1, keepdims=True), 1)).astype(np.float32)


def _seen(name: str, pattern: Any, tokens: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The attention between tokens that count, `[text query key]`, and which pairs they are."""
    pattern, n = np.asarray(pattern).astype(np.float32), tokens.shape[-1]
    if pattern.shape != (*tokens.shape, n) or not pattern.size:
        raise ValueError(
            f"{name}: a pattern {list(pattern.shape)} for tokens {list(tokens.shape)}: they must be of one"
        )
    pairs = counted[:, :, None] & counted[:, None, :] & (np.arange(n) <= np.arange(n)[:, None])
    return np.where(pairs, pattern, 0), pairs


def _typical(given: np.ndarray, known: np.ndarray, strings: Sequence[str]) -> Tokens:
    """The tokens that get more than their share of the text, those that tell the most."""
    p = given / max(given.sum(), 1e-12)
    gain = np.where((p >= LEAST) & (p >= LIFT * known), p * np.log(np.maximum(p, 1e-12) / np.maximum(known, 1e-12)), 0)
    order = np.argsort(-gain)[: min(WORDS, int((gain > 0).sum()))]
    among = np.zeros(len(strings), bool)
    among[order] = True
    return Tokens(among, _listed([strings[int(i)] for i in order]))


def _listed(words: Sequence[str]) -> str:
    shown = [f"“{word.strip() or '␣'}”" for word in words[:SHOWN]]
    return ", ".join(shown) + (", …" if len(words) > SHOWN else "")


def _copying(survey: Survey, layer: int, head: int, tokens: np.ndarray, strings: Sequence[str], written: Any) -> float:
    """The share of examples with words in which the token that is looked at most is one of them."""
    told = []
    for examples in (survey.top, survey.sampled):
        sequence, position = (np.ravel(x[layer, head]).tolist() for x in (examples.sequence, examples.position))
        keys = examples.keys[layer, head].reshape(len(sequence), -1)[:, 0].tolist()
        for text, query, key in zip(sequence, position, keys, strict=True):
            words = {word.strip() for word in written.get((text, query), ())}
            told += [strings[int(tokens[text, key])].strip() in words] if words else []
    return float(np.mean(told)) if told else 0.0


def _from_sums(sums: np.ndarray) -> np.ndarray:
    """Pearson's r of `[... 6]`: how many, sums of x, y, x x, y y and x y; 0 where one of them does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    size = np.sqrt(np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0))
    return np.clip(np.where(size > 0, n * xy - x * y, 0) / np.where(size > 0, size, 1), -1, 1)
