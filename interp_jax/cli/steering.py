"""Text that one feature of a dictionary steers, beside what the model says without."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from interp_jax import dictionaries, models, report
from interp_jax.cli.subject import Subject
from interp_jax.interventions import at, replace
from interp_jax.progress import Progress

STRENGTHS = (1.0, 2.5)  # of the feature's largest activation


@dataclass(frozen=True)
class Steered:
    """One prompt, continued by the model as it is (`before`) and with a feature held at `strength` (`after`)."""

    feature: report.Feature
    strength: float
    prompt: str
    before: str
    after: str

    def shown(self) -> dict[str, str]:
        """The prompt and both texts, as `report.page` takes them."""
        texts = {"prompt": self.prompt, "before": self.before, "after": self.after}
        return {"feature": str(self.feature.label), **texts}


def steer(
    subject: Subject,
    dictionary: Any,
    features: Sequence[report.Feature],
    prompts: Sequence[str],
    *,
    n_tokens: int = 30,
) -> Steered:
    """Steers by each feature, and gives the case where its label's words come up most, in text that stays fluent.

    Each feature is held at each of `STRENGTHS` at every position, for each prompt; the dictionary's error is kept. All
    cases are one compiled program.

    Args:
      subject: the model and the site.
      dictionary: of the site.
      features: those to try.
      prompts: the texts to go on from.
      n_tokens: how many tokens the model says, fewer where its context ends.
    """
    tokens, mask, _ = models.tokenize(subject.tokenizer, list(prompts), bos=subject.tokenizer.bos_id is not None)
    n_tokens = min(n_tokens, subject.model.config.n_ctx - tokens.shape[1])

    def continued(edits: dict[str, Any]) -> tuple[list[str], np.ndarray]:
        """How each prompt goes on, and by how many nats the least likely of its tokens surprises the unedited model."""
        out = models.generate(subject.model, tokens, n_tokens, attention_mask=mask, edits=edits)
        texts = ["".join(subject.tokenizer.to_str_tokens(row)) for row in np.asarray(out)[:, -n_tokens:]]
        return texts, np.asarray(_surprise(subject.model, out, mask, n_tokens))

    before, usual = continued({})
    best: tuple[float, Steered] | None = None
    with Progress("steering", len(features) * len(STRENGTHS)) as progress:
        for feature, factor in itertools.product(features, STRENGTHS):
            progress.begin(f"feature {feature.index}")
            strength = factor * feature.maximum
            edit = at(replace(jnp.float32(strength)), feature=jnp.int32(feature.index))
            after, surprise = continued({subject.site: dictionaries.splice(dictionary, edit=edit)})
            for i, prompt in enumerate(prompts):
                score = _score(feature.label.words, before[i], after[i]) * feature.label.nats
                score *= np.exp(min(0.0, (usual[i] - surprise[i]) / 3))
                if best is None or score > best[0]:
                    best = score, Steered(feature, strength, prompt, before[i], after[i])
    assert best is not None
    return best[1]


@partial(jax.jit, static_argnames="n_tokens")
def _surprise(model: Any, tokens: jax.Array, mask: jax.Array, n_tokens: int) -> jax.Array:
    mask = jnp.pad(mask, ((0, 0), (0, n_tokens)), constant_values=True)
    logits = models.forward(model, tokens, attention_mask=mask)[:, -n_tokens - 1 : -1].astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, -n_tokens:]).max(-1)


def _score(words: Sequence[str], before: str, after: str) -> float:
    """How clearly the words come up: how many more there are after than before, at most 2, less where text repeats.

    The count is multiplied by the cube of the share of neighbouring words that are no repetition of such a pair.
    """
    wanted = {word.casefold() for word in words}

    def said(text: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", text.casefold())

    more = sum(word in wanted for word in said(after)) - sum(word in wanted for word in said(before))
    pairs = list(zip(said(after), said(after)[1:], strict=False))
    return (min(2, more) + 0.1) * (len(set(pairs)) / max(len(pairs), 1)) ** 3
