"""A before and after of text that one feature of a dictionary steers."""

from collections.abc import Sequence
from dataclasses import dataclass
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from interp_jax import dictionaries, models, report
from interp_jax.cli.subject import Subject
from interp_jax.interventions import at, replace

STRENGTHS = (0.5, 1.0, 2.0)  # of the feature's largest activation


@dataclass(frozen=True)
class Steered:
    """One prompt, continued without and with a feature clamped to `strength`."""

    feature: report.Feature
    strength: float
    prompt: str
    before: str
    after: str

    def shown(self) -> dict[str, str]:
        """For `report.page`."""
        texts = {"prompt": self.prompt, "before": self.before, "after": self.after}
        return {"feature": str(self.feature.label), **texts}


def steer(
    subject: Subject,
    dictionary: Any,
    features: Sequence[report.Feature],
    prompts: Sequence[str],
    *,
    n_tokens: int = 40,
) -> Steered:
    """Of all features, strengths and prompts, the case where the label's words come up most clearly in fluent text.

    The feature is clamped at every position, and the dictionary's error is kept. All cases are one compiled program.
    """
    tokens, mask, _ = models.tokenize(subject.tokenizer, list(prompts), bos=subject.tokenizer.bos_id is not None)

    def continued(edits: dict[str, Any]) -> list[str]:
        out = models.generate(subject.model, tokens, n_tokens, attention_mask=mask, edits=edits)
        return ["".join(subject.tokenizer.to_str_tokens(row)) for row in np.asarray(out)[:, -n_tokens:]]

    before = continued({})
    best: tuple[float, Steered] | None = None
    for feature in features:
        for factor in STRENGTHS:
            strength = factor * feature.maximum
            edit = at(replace(jnp.float32(strength)), feature=jnp.int32(feature.index))
            after = continued({subject.site: dictionaries.splice(dictionary, edit=edit)})
            for prompt, plain, changed in zip(prompts, before, after, strict=True):
                score = _score(feature.label.words, plain, changed)
                if best is None or score > best[0]:
                    best = score, Steered(feature, strength, prompt, plain, changed)
    assert best is not None
    return best[1]


def _score(words: Sequence[str], before: str, after: str) -> float:
    """How many more of the words there are, at most 3, times the share of different pairs of words."""
    wanted = {word.casefold() for word in words}

    def count(text: str) -> int:
        return sum(word in wanted for word in re.findall(r"\w+|[^\w\s]", text.casefold()))

    said = re.findall(r"\w+|[^\w\s]", after.casefold())
    pairs = list(zip(said, said[1:], strict=False))
    variety = len(set(pairs)) / max(len(pairs), 1)
    return (min(3, count(after) - count(before)) + 0.1) * variety**3
