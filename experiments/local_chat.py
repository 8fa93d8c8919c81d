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
      ask: prompt -> answer, the likeliest.
      sample: (prompt, seed) -> one of the answers that it may give.
      log_probs: (prompts, options, lead) -> `[prompt option]`, the log probabilities, in nats, with which an answer
        that begins with the lead goes on to each option: of the first token in which the options differ. None behind
        an endpoint.
    """

    ask: Callable[[str], str]
    sample: Callable[[str, int], str]
    log_probs: Callable[[Sequence[str], Sequence[str], str], np.ndarray] | None


def parted(rows: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    """The tokens that texts have in common, and the token of each that comes next.

    Raises:
      ValueError: two texts have that in common too.
    """
    common = next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), 0)
    after = [row[common] for row in rows]
    if len(set(after)) < len(rows):
        raise ValueError("options: two of them begin with the same token: give others")
    return list(rows[0][:common]), after


def at_hand(model: Any, tokenizer: Any, n_tokens: int, temperature: float = 0.7) -> Speaker:
    """A model that is loaded, whose answers have at most `n_tokens` tokens."""

    def talk(prompt: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": prompt}]

    def said(prompt: str, **options: Any) -> str:
        tokens, mask, _ = models.tokenize(tokenizer, [talk(prompt)], chat=True)
        out = models.generate(model, tokens, n_tokens, attention_mask=mask, stop=tokenizer.eos_id, **options)
        return tokenizer.decode(np.asarray(out)[0, tokens.shape[1] :], skip_special=True).strip()

    def log_probs(prompts: Sequence[str], options: Sequence[str], lead: str, chunk: int = 8) -> np.ndarray:
        texts = [tokenizer.render(talk(prompt)) + lead for prompt in prompts]
        ways = [parted([tokenizer.encode(text + one, bos=False) for one in options]) for text in texts]
        rows, chosen = [row for row, _ in ways], [after for _, after in ways]
        order, found = np.argsort([len(row) for row in rows], kind="stable"), np.zeros((len(rows), len(options)))
        for start in range(0, len(order), chunk):
            some = order[np.minimum(np.arange(start, start + chunk), len(order) - 1)]  # of one size: few programs
            width = -(-max(len(rows[i]) for i in some) // 16) * 16
            tokens, mask = np.zeros((chunk, width), np.int32), np.zeros((chunk, width), bool)
            for j, i in enumerate(some):
                tokens[j, width - len(rows[i]) :], mask[j, width - len(rows[i]) :] = rows[i], True
            last = jnp.full(chunk, width - 1)
            logits = models.forward(model, tokens, attention_mask=mask, logits_at=last)
            told = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32)))
            found[some] = [told[j, chosen[i]] for j, i in enumerate(some)]
        return found

    def sample(prompt: str, seed: int) -> str:
        return said(prompt, key=jax.random.key(seed), temperature=temperature)

    return Speaker(said, sample, log_probs)


def chances(speaker: Speaker, prompts: Sequence[str], options: Sequence[str], lead: str = "") -> np.ndarray:
    """How likely an answer that begins with the lead goes on to each option, `[prompt option]`: in nats; of a speaker
    without log probabilities 1 for the option that its answer has first, and 0 for others."""
    if speaker.log_probs is not None:
        return speaker.log_probs(prompts, [f" {one}" if lead else one for one in options], lead)
    found = np.zeros((len(prompts), len(options)))
    for row, prompt in zip(found, prompts, strict=True):
        answer = speaker.ask(prompt).lower()
        places = {answer.index(one.lower()): i for i, one in enumerate(options) if one.lower() in answer}
        if places:
            row[places[min(places)]] = 1
    return found


def odds(speaker: Speaker, prompts: Sequence[str], yes: str, no: str, lead: str = "") -> np.ndarray:
    """How much rather an answer goes on to one word than to another, `[prompt]`."""
    told = chances(speaker, prompts, (yes, no), lead)
    return told[:, 0] - told[:, 1]


def speaker(model: str, base_url: str, n_tokens: int) -> Speaker:
    """The model of this name behind an endpoint where one is given, or else the one that `models.load` finds."""
    if base_url:
        ask, warm = (endpoint.ask(model, base_url=base_url, temperature=t) for t in (0.0, 0.7))
        return Speaker(ask, lambda prompt, seed: warm(prompt), None)
    return at_hand(*models.load(model, dtype="float32"), n_tokens)
