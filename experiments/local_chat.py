"""A language model that is asked in words: one at hand, by its chat template, or one behind an endpoint."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import models
from interp_jax.io import endpoint


class Speaker(NamedTuple):
    """Somebody who answers.

    Attributes:
      ask: prompt -> answer, the likeliest or, of `sample(prompt, seed)`, one of those it may give.
      sample: (prompt, seed) -> answer.
      log_probs: (prompts, beginnings) -> `[prompt beginning]`, the log probabilities, in nats, of the tokens with
        which answers may begin. None behind an endpoint.
    """

    ask: Callable[[str], str]
    sample: Callable[[str, int], str]
    log_probs: Callable[[Sequence[str], Sequence[str]], np.ndarray] | None


def at_hand(model: Any, tokenizer: Any, n_tokens: int, temperature: float = 0.7) -> Speaker:
    """A model that is loaded, whose answers have at most `n_tokens` tokens."""

    def talk(prompt: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": prompt}]

    def said(prompt: str, **options: Any) -> str:
        tokens, mask, _ = models.tokenize(tokenizer, [talk(prompt)], chat=True)
        out = models.generate(model, tokens, n_tokens, attention_mask=mask, stop=tokenizer.eos_id, **options)
        return tokenizer.decode(np.asarray(out)[0, tokens.shape[1] :], skip_special=True).strip()

    def log_probs(prompts: Sequence[str], beginnings: Sequence[str], chunk: int = 8) -> np.ndarray:
        ids = [tokenizer.encode(word, bos=False)[0] for word in beginnings]
        if len(set(ids)) < len(ids):
            raise ValueError(f"log_probs: {list(beginnings)} begin with the same token: give others")
        lengths = [len(tokenizer.encode(talk(prompt), chat=True)) for prompt in prompts]
        order, found = np.argsort(lengths, kind="stable"), np.zeros((len(prompts), len(ids)))
        for start in range(0, len(order), chunk):
            rows = order[np.minimum(np.arange(start, start + chunk), len(order) - 1)]  # of one size: few programs
            tokens, mask, last = models.tokenize(tokenizer, [talk(prompts[row]) for row in rows], chat=True)
            pad = -tokens.shape[1] % 16
            tokens, mask = (jnp.pad(x, ((0, 0), (pad, 0))) for x in (tokens, mask))
            logits = models.forward(model, tokens, attention_mask=mask, logits_at=last + pad)
            found[rows] = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32)))[:, ids]
        return found

    def sample(prompt: str, seed: int) -> str:
        return said(prompt, key=jax.random.key(seed), temperature=temperature)

    return Speaker(said, sample, log_probs)


def chances(speaker: Speaker, prompts: Sequence[str], options: Sequence[str]) -> np.ndarray:
    """How likely an answer begins with each option, `[prompt option]`: in nats; of a speaker without log probabilities
    1 where its answer does and 0 where not."""
    if speaker.log_probs is not None:
        return np.asarray(speaker.log_probs(prompts, options))
    answers = [speaker.ask(prompt).strip().lower() for prompt in prompts]
    return np.array([[float(answer.startswith(one.lower())) for one in options] for answer in answers])


def odds(speaker: Speaker, prompts: Sequence[str], yes: str, no: str) -> np.ndarray:
    """How much rather an answer begins with one word than with another, `[prompt]`."""
    told = chances(speaker, prompts, (yes, no))
    return told[:, 0] - told[:, 1]


def speaker(model: str, base_url: str, n_tokens: int) -> Speaker:
    """The model of this name behind an endpoint where one is given, or else the one that `models.load` finds."""
    if base_url:
        ask, warm = (endpoint.ask(model, base_url=base_url, temperature=t) for t in (0.0, 0.7))
        return Speaker(ask, lambda prompt, seed: warm(prompt), None)
    return at_hand(*models.load(model, dtype="float32"), n_tokens)
