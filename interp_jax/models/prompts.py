"""Prompts to a padded batch of tokens, and where in the batch a span of their text stands."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int
import numpy as np

from interp_jax.models.tokenizer import Tokenizer

Array = jax.Array


def tokenize(
    tokenizer: Tokenizer | None,
    prompts: str | Sequence[Any],
    *,
    side: str = "left",
    bos: bool | None = None,
    chat: Any = None,
) -> tuple[Int[Array, "batch position"], Bool[Array, "batch position"], Int[Array, " batch"]]:
    """Prompts to a padded batch.

    Args:
      tokenizer: a `Tokenizer`.
      prompts: one string or several. With `chat`, each may also be a conversation, a list of messages
        `{"role": ..., "content": ...}`; one list of messages is one prompt, and a string is one user's turn.
      side: where the padding goes, `"left"` or `"right"`.
      bos: begin each prompt with the bos token; None: as `Tokenizer` says, once for all.
      chat: None: prompts are text. True: the tokenizer's own chat template. A string: the name of one of its templates,
        or a template. A dict: the options of transformers' `apply_chat_template`, which are `chat_template`,
        `add_generation_prompt`, `continue_final_message` and whatever variables the template has (`tools`,
        `enable_thinking`, ...). The assistant's header follows by default unless the last message is the assistant's.

    Returns:
      tokens int32, attention_mask bool (False at padding), and last int32: the column of the last real token of each
      prompt, as `logits_at` takes it.

    Raises:
      ValueError: no prompts, a prompt without any token, an unknown `side`; messages without `chat`, no such chat
        template, one that is broken or refuses a conversation, a message without a role or without content; `bos=True`
        where there is no bos token or the chat template writes it.

    Example:
      >>> from tokenizers import Tokenizer as Backend, models as kinds, pre_tokenizers
      >>> from interp_jax import models
      >>> backend = Backend(kinds.WordLevel({"<s>": 0, "a": 1, "cat": 2}, unk_token="<s>"))
      >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
      >>> tokens, mask, last = models.tokenize(models.Tokenizer(backend), ["a cat", "cat"])
      >>> tokens.tolist(), mask.astype(int).tolist(), last.tolist()
      ([[1, 2], [0, 2]], [[1, 1], [0, 1]], [1, 1])
      >>> cat = [{"role": "user", "content": "cat"}]
      >>> models.tokenize(models.Tokenizer(backend), cat, chat="a {{ messages[0].content }}")[0].tolist()
      [[1, 2]]
    """
    tokenizer = _existing("tokenize", tokenizer)
    rows = []
    for i, prompt in enumerate(_prompts(prompts)):
        with _naming(i):
            rows.append(tokenizer.encode(prompt, bos=bos, chat=chat))
    mask = _mask([len(row) for row in rows], side)
    tokens = np.full(mask.shape, tokenizer.pad_id, np.int32)
    tokens[mask] = np.concatenate(rows)
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
    return jnp.asarray(tokens), jnp.asarray(mask), jnp.asarray(last, jnp.int32)


def locate(
    tokenizer: Tokenizer | None,
    prompts: str | Sequence[Any],
    spans: str | Sequence[Any],
    *,
    side: str = "left",
    bos: bool | None = None,
    chat: Any = None,
) -> tuple[Bool[Array, "batch position"], Int[Array, " batch"], Int[Array, " batch"]]:
    """The tokens that cover a span of each prompt's text, such as a name.

    A token covers a span if it stands for any character of it, so a name's token counts whether its space is in the
    span or not. Some tokenizers count spaces to no token.

    Args:
      tokenizer: a `Tokenizer`.
      prompts: as `tokenize`.
      spans: one a prompt, or one string for all. A string must stand in the prompt exactly once; (start, end) are
        characters of the prompt's text, with `chat` of `tokenizer.render(prompt, chat=chat)`.
      side: as `tokenize`.
      bos: as `tokenize`.
      chat: as `tokenize`.

    Returns:
      mask bool over the columns of `tokenize`'s batch, as `at(mask=)` takes it; first and last int32: the positions of
      the span's first and last token, as `at(position=)` takes them (real tokens from 0, padding skipped).

    Raises:
      ValueError: a string that a prompt has not or has more than once, a span outside the text or that no token covers,
        not one span a prompt; as `tokenize`.

    Example:
      >>> from interp_jax import models
      >>> _, tokenizer = models.load("microworld")
      >>> mask, first, last = models.locate(tokenizer, ["Emma gave Adam the book .", "the book ."], "the book")
      >>> mask.astype(int).tolist(), first.tolist(), last.tolist()
      ([[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1, 0]], [4, 1], [5, 2])
    """
    tokenizer = _existing("locate", tokenizer)
    prompts = _prompts(prompts)
    spans = [spans] * len(prompts) if isinstance(spans, str) else list(spans)
    if len(spans) != len(prompts):
        raise ValueError(f"locate: there are {len(prompts)} prompts, but {len(spans)} spans; give one a prompt")
    lengths, ends = [], []
    for i, (prompt, span) in enumerate(zip(prompts, spans, strict=True)):
        with _naming(i):
            start, stop = _characters(tokenizer.render(prompt, chat=chat), span)
            starts, stops = tokenizer.offsets(prompt, bos=bos, chat=chat).T
            covering = np.flatnonzero((starts < stop) & (stops > start))
            if not covering.size:
                raise ValueError(f"no token covers the characters {start} to {stop}; take in a letter beside them")
            lengths.append(len(starts))
            ends.append((covering[0], covering[-1]))
    real = _mask(lengths, side)
    first, last = np.array(ends, np.int32).T
    positions = real.cumsum(1) - 1
    mask = real & (positions >= first[:, None]) & (positions <= last[:, None])
    return jnp.asarray(mask), jnp.asarray(first), jnp.asarray(last)


def _existing(name: str, tokenizer: Tokenizer | None) -> Tokenizer:
    if tokenizer is None:
        raise ValueError(
            f"{name}: the tokenizer is None: the model's folder has no tokenizer.json; add it and load again"
        )
    return tokenizer


def _prompts(prompts: str | Sequence[Any]) -> list[Any]:
    """One prompt alone, a string or a list of messages, is a batch of one."""
    alone = isinstance(prompts, str) or (len(prompts) and all(isinstance(one, Mapping) for one in prompts))
    return [prompts] if alone else list(prompts)


def _characters(text: str, span: Any) -> tuple[int, int]:
    """The span as (start, end)."""
    if not isinstance(span, str):
        try:
            start, end = map(operator.index, span)
        except (TypeError, ValueError):
            raise ValueError(f"a span is a string or (start, end) in characters, not {span!r}") from None
        if not 0 <= start < end <= len(text):
            raise ValueError(f"the span {(start, end)} is empty or outside the text of {len(text)} characters")
        return start, end
    found = [i for i in range(len(text)) if span and text.startswith(span, i)]
    if len(found) != 1:
        where = f" at {', '.join(map(str, found))}; give (start, end)" if found else "; spell it as in the prompt"
        raise ValueError(f"{span!r} must stand in the text once, not {len(found)} times{where}")
    return found[0], found[0] + len(span)


def _mask(lengths: Sequence[int], side: str) -> Bool[np.ndarray, "batch position"]:
    """True at real tokens."""
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', not {side!r}")
    if not lengths:
        raise ValueError("there are no prompts; give at least one")
    if 0 in lengths:
        raise ValueError(f"prompt {lengths.index(0)} has no tokens; use bos=True or drop it")
    right = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return right if side == "right" else right[:, ::-1]


@contextlib.contextmanager
def _naming(prompt: int) -> Iterator[None]:
    try:
        yield
    except ValueError as e:
        raise ValueError(f"prompt {prompt}: {e}") from None
