"""A page of features: what each fires on, how strongly, and which tokens it makes likelier. One file, no network.

Every feature shows its activation histogram, its strongest examples, examples sampled from each fifth of its range
(a feature is only as clear as its weak activations), and the tokens whose logits its decoder row raises and lowers
most: W_dec[feature] W_U. Bricken et al. 2023, Towards Monosemanticity, appendix on the feature dashboards.
Caveat: the logits are the direct path only, through a final norm whose scale is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_jax.explain import Excerpt, Firings, Label
from interp_jax.report.rendering import render

N_INTERVALS = 5
BEFORE, AFTER = 70, 30  # letters shown around the token that fires


@dataclass(frozen=True)
class Feature:
    """What a page shows of one feature.

    Attributes:
      index: its number in the dictionary.
      label: a guess at what it is about.
      density: the share of tokens on which it fires.
      maximum: its largest activation.
      histogram: counts of its positive activations in equal bins from 0 to `maximum`.
      top: its strongest examples, of different texts.
      intervals: `(low, high, examples)`, from the highest fifth of the range down.
      raised, lowered: `(token, change of its logit)`, the strongest first.
    """

    index: int
    label: Label
    density: float
    maximum: float
    histogram: tuple[int, ...]
    top: tuple[Excerpt, ...]
    intervals: tuple[tuple[float, float, tuple[Excerpt, ...]], ...]
    raised: tuple[tuple[str, float], ...]
    lowered: tuple[tuple[str, float], ...]


def describe(
    found: Firings,
    feature: int,
    label: Label,
    tokens: np.ndarray,
    mask: np.ndarray,
    strings: Sequence[str],
    logits: np.ndarray | None,
    *,
    n_top: int = 6,
    n_sampled: int = 2,
    n_logits: int = 8,
    n_bins: int = 30,
) -> Feature:
    """Gathers what the page shows of one feature.

    Args:
      found: from `firings`.
      feature: its index.
      label: from `labels.label` or `labels.telling`.
      tokens: `[sequence position]`.
      mask: `[sequence position]`, False at padding and special tokens, which are not shown.
      strings: the text of every token of the vocabulary.
      logits: `[d_vocab]`, what one unit of the feature adds to each logit. Tokens that do not occur are not shown.
        None where that is not defined.
      n_top: strongest examples.
      n_sampled: examples from each interval.
      n_logits: tokens of each sign.
      n_bins: bars of the histogram.

    Raises:
      ValueError: the feature never fires.
    """
    places, values = found.of(feature)
    if not len(places):
        raise ValueError(f"describe: feature {feature} never fires in this text")
    dense, maximum = found.dense(feature), float(values.max())

    def pick(order: np.ndarray, n: int) -> tuple[Excerpt, ...]:
        examples: list[Excerpt] = []
        seen: set[Any] = set()
        for place in places[order]:
            row, position = divmod(int(place), found.shape[1])
            example = _excerpt(tokens[row], dense[row], mask[row], position, strings)
            nearby = example.tokens[max(0, example.focus - 4) : example.focus + 1]
            if row in seen or nearby in seen:
                continue
            seen |= {row, nearby}
            examples.append(example)
            if len(examples) == n:
                break
        return tuple(examples)

    rng = np.random.default_rng(feature)
    edges = np.linspace(0.0, maximum, N_INTERVALS + 1)
    intervals = []
    for low, high in reversed(list(zip(edges[:-1], edges[1:], strict=True))):
        inside = np.flatnonzero((values > low) & (values <= high))
        intervals.append((float(low), float(high), pick(rng.permutation(inside), n_sampled)))

    by_logit: list[tuple[str, float]] = []
    if logits is not None:
        occurring = np.flatnonzero(np.bincount(tokens[mask], minlength=len(logits)))
        order = occurring[np.argsort(-logits[occurring], kind="stable")]
        by_logit = [(strings[i], float(logits[i])) for i in map(int, order)]
    return Feature(
        index=feature,
        label=label,
        density=float(found.densities[feature]),
        maximum=maximum,
        histogram=tuple(np.histogram(values, n_bins, (0.0, maximum))[0].tolist()),
        top=pick(np.argsort(-values, kind="stable"), n_top),
        intervals=tuple(intervals),
        raised=tuple(by_logit[:n_logits]),
        lowered=tuple(by_logit[::-1][:n_logits]),
    )


def _excerpt(
    tokens: np.ndarray, values: np.ndarray, mask: np.ndarray, position: int, strings: Sequence[str]
) -> Excerpt:
    def reach(step: int, n_letters: int) -> list[int]:
        """The places on one side of `position`, up to about `n_letters` away."""
        found, at = [], position + step
        while 0 <= at < len(tokens) and mask[at] and n_letters > 0:
            found.append(at)
            n_letters -= len(strings[int(tokens[at])])
            at += step
        return found

    before = reach(-1, BEFORE)[::-1]
    while before and before[0] > 0 and mask[before[0] - 1] and strings[int(tokens[before[0]])][:1].isalnum():
        before.pop(0)  # do not begin within a word
    after = reach(1, AFTER)
    end = after[-1] + 1 if after else position + 1
    while after and end < len(tokens) and mask[end] and strings[int(tokens[end])][:1].isalnum():
        after.append(end)  # nor end within one
        end += 1
    shown = [*before, position, *after]
    return Excerpt(
        tuple(strings[int(tokens[p])] for p in shown),
        tuple(round(float(values[p]), 3) for p in shown),
        len(before),
    )


def page(
    features: Sequence[Feature],
    *,
    title: str,
    facts: Mapping[str, str],
    densities: np.ndarray,
    steered: Mapping[str, str] | None = None,
    code: str = "",
) -> str:
    """The page, as one HTML text that needs nothing else. Whatever it shows is escaped.

    Args:
      features: from `describe`.
      title: the heading.
      facts: name -> value, shown in a row under it.
      densities: `[d_sae]`, the firing densities of all features, for the overview.
      steered: `{"feature", "prompt", "before", "after"}`, an example of steering, or None.
      code: lines of Python that load the dictionary, shown at the end.

    Example:
      >>> import numpy as np
      >>> from interp_jax import report
      >>> html = report.page([], title="<none>", facts={"features": "0"}, densities=np.array([0.0, 0.1]))
      >>> "&lt;none&gt;" in html, "http" in html
      (True, False)
    """
    alive = densities[densities > 0]
    spread = np.histogram(np.log10(alive), 40, (-6.0, 0.0))[0].tolist()
    return render(
        "dashboard.html",
        features=features,
        title=title,
        facts=facts,
        spread=spread,
        n_dead=int((densities == 0).sum()),
        steered=steered,
        code=code,
        bars=bars,
        share=share,
    )


def bars(counts: Sequence[int], width: int, height: int) -> list[tuple[float, float, float, float]]:
    """`(x, y, width, height)` of the bars of a histogram; their heights go by the square root of the count, so that
    the rare strong activations can be seen beside the frequent weak ones.

    Example:
      >>> bars([4, 0, 1], 30, 10)
      [(0.5, 0.0, 9.0, 10.0), (20.5, 5.0, 9.0, 5.0)]
    """
    step, largest = width / len(counts), max(*counts, 1)
    heights = [max(1.0, height * (count / largest) ** 0.5) for count in counts]
    return [
        (round(i * step + 0.5, 2), round(height - heights[i], 2), round(step - 1, 2), round(heights[i], 2))
        for i, count in enumerate(counts)
        if count
    ]


def share(x: float) -> str:
    """A share with a readable number of digits.

    Example:
      >>> share(0.0213), share(0.00042), share(0.998)
      ('2.1%', '0.042%', '100%')
    """
    return f"{float(f'{100 * x:.2g}'):g}%"
