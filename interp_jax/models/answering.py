"""A model at hand as a chat model: it is given requests, and writes answers or reads those that it is given."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.io.chat import Chat, Reply, Request, Token
from interp_jax.models.decoder import Decoder
from interp_jax.models.forwarding import forward
from interp_jax.models.generation import SMALLEST, generate
from interp_jax.models.prompts import tokenize
from interp_jax.models.tokenizer import Tokenizer


def answering(model: Any, tokenizer: Tokenizer, *, batch_size: int = 4) -> Chat:
    """A chat model out of a decoder and its tokenizer, which takes what `io.endpoint.Endpoint` takes.

    Answers are the likeliest tokens up to the end of the text. A conversation goes through the tokenizer's chat
    template; without one, the messages' texts stand one after the other.

    Args:
      model: a `Decoder`.
      tokenizer: its tokenizer.
      batch_size: how many requests are answered at once.

    Returns:
      `chat(requests) -> replies`, one each. A request that is longer than the model reads has that as its `error`.

    Raises:
      TypeError: the model is not a `Decoder`.

    Example:
      >>> from interp_jax import models
      >>> from interp_jax.io.chat import Request
      >>> ask = models.answering(*models.load("microworld"))
      >>> (reply,) = ask([Request(({"role": "user", "content": "Emma gave Adam the"},), answer=" book .", top=2)])
      >>> len(reply.tokens), len(reply.tokens[0].top)
      (2, 2)
    """
    if not isinstance(model, Decoder):
        raise TypeError(f"answering: needs a Decoder, not a {type(model).__name__}, which writes no text")

    def chat(requests: Sequence[Request]) -> list[Reply]:
        prompts = [_prompt(tokenizer, request) for request in requests]
        replies: dict[int, Reply] = {}
        n_ctx = model.config.n_ctx
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            n = len(tokenizer.encode(prompt + (request.answer or ""), bos=False))
            n += 0 if request.answer is not None else request.max_tokens
            if n > n_ctx:
                replies[i] = Reply("", error=f"{n} tokens with the answer are more than n_ctx {n_ctx}")
            elif request.answer is not None:
                replies[i] = _read(model, tokenizer, prompt, request)
        rest = sorted((i for i in range(len(requests)) if i not in replies), key=lambda i: len(prompts[i]))
        for start in range(0, len(rest), batch_size):
            some = rest[start : start + batch_size]
            written = _write(model, tokenizer, [prompts[i] for i in some], [requests[i] for i in some])
            replies |= dict(zip(some, written, strict=True))
        return [replies[i] for i in range(len(requests))]

    return chat


def _prompt(tokenizer: Tokenizer, request: Request) -> str:
    messages = [dict(message) for message in request.messages]
    if tokenizer.templates:
        return tokenizer.render(messages)
    return "".join(f"{message['content']}\n\n" for message in messages).removesuffix("\n\n")


def _write(model: Any, tokenizer: Tokenizer, prompts: Sequence[str], requests: Sequence[Request]) -> list[Reply]:
    tokens, mask, _ = tokenize(tokenizer, prompts, bos=False)
    n, top = max(one.max_tokens for one in requests), max(one.top for one in requests)
    run = partial(generate, model, tokens, n, attention_mask=mask, stop=tokenizer.eos_id)
    out, acts = run(capture="logits") if top else (run(), {})
    new = np.asarray(out)[:, tokens.shape[1] :]
    found = _likeliest(acts["logits"], new, top) if top else None
    replies = []
    for i, (ids, request) in enumerate(zip(new.tolist(), requests, strict=True)):
        ids = ids[: request.max_tokens]
        ids = ids[: ids.index(tokenizer.eos_id)] if tokenizer.eos_id in ids else ids
        strings = tokenizer.to_str_tokens(ids)
        told = _tokens(tokenizer, strings, *(x[i] for x in found)) if found and request.top else ()
        replies.append(Reply("".join(strings), told))
    return replies


def _read(model: Any, tokenizer: Tokenizer, prompt: str, request: Request) -> Reply:
    """The answer's tokens, of which the logits before each say how likely it was."""
    text = prompt + (request.answer or "")
    ids, starts = tokenizer.encode(text, bos=False), tokenizer.offsets(text, bos=False)[:, 0].tolist()
    first = max(1, next((i for i, start in enumerate(starts) if start >= len(prompt)), len(ids)))
    width = max(SMALLEST, 1 << (len(ids) - 1).bit_length())  # few shapes compile
    tokens = np.zeros((1, min(width, model.config.n_ctx)), np.int32)
    tokens[0, : len(ids)] = ids
    logits = forward(model, tokens, attention_mask=np.arange(tokens.shape[1])[None] < len(ids))
    found = _likeliest(logits, np.roll(tokens, -1, axis=1), max(request.top, 1))
    cuts = [len(prompt), *starts[first + 1 :], len(text)]  # a space before a token may be of none
    strings = [text[start:end] for start, end in zip(cuts[:-1], cuts[1:], strict=True)]
    return Reply(request.answer or "", _tokens(tokenizer, strings, *(x[0, first - 1 :] for x in found)))


def _tokens(
    tokenizer: Tokenizer, strings: Sequence[str], log_probs: np.ndarray, values: np.ndarray, likely: np.ndarray
) -> tuple[Token, ...]:
    """Tokens by their texts, with the log probability of each `[token]` and those of the likeliest `[token top]`."""
    made = []
    for i, text in enumerate(strings):
        top = dict(zip(tokenizer.to_str_tokens(likely[i]), values[i].tolist(), strict=True))
        made.append(Token(text, float(log_probs[i]), top))
    return tuple(made)


def _likeliest(logits: Any, chosen: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log probabilities of chosen tokens `[batch position]`, and those of the `n` likeliest with their ids."""
    log_probs, (values, ids) = _ranked(logits, jnp.asarray(chosen), n)
    return np.asarray(log_probs), np.asarray(values), np.asarray(ids)


@partial(jax.jit, static_argnums=2)
def _ranked(logits: jax.Array, chosen: jax.Array, n: int) -> Any:
    logs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return jnp.take_along_axis(logs, chosen[..., None], -1)[..., 0], jax.lax.top_k(logs, n)
