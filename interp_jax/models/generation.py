"""Generation with a cache of keys and values: one program for all lengths up to a bound."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from interp_jax.core import as_intervention, capture, intervene, sites, split_address, transform
from interp_jax.models.attention import Sight
from interp_jax.models.captured import Captured, slots_of_columns
from interp_jax.models.decoder import Cache, Decoder, decode
from interp_jax.models.frame import Frame, Places, count, rotary_of
from interp_jax.models.inputs import check_range, check_tokens
from interp_jax.models.transformer import Transformer

Array = jax.Array
SMALLEST = 16  # slots of the shortest prompt and of the shortest continuation that are compiled for


class _Options(NamedTuple):
    slots: int  # for new tokens
    capture: tuple[str, ...]


def generate(
    model: Transformer,
    tokens: Any,
    n_tokens: int,
    *,
    attention_mask: Any = None,
    key: Array | None = None,
    temperature: float = 0.0,
    edits: Mapping[str, Any] | None = None,
    stop: int | Sequence[int] | None = None,
    capture: str | Iterable[str] | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Any:
    """Continues prompts by `n_tokens` tokens each. Equal, token by token, to calling `forward` on all that stands.

    Prompts and continuations are padded to powers of two, so that few shapes compile.

    Args:
      model: a `Decoder`.
      tokens: int `[position]` or `[batch position]`, the prompts.
      n_tokens: how many tokens to add.
      attention_mask: the shape of `tokens`, 0 at padding, which may stand on either side.
      key: needed to sample; the token `t` of the continuation is drawn with `jax.random.fold_in(key, t)`.
      temperature: 0 takes the likeliest token.
      edits: `{address: intervention}`, applied at every step, each token in its true position. `position="prompt"` and
        `position="generated"` are the two parts. Any other edit must do the same at each position and leave the
        examples apart. One that gives weight to later keys, at `pattern` or `attn_scores`, sees those that stand at its
        step: it cannot equal `forward` on the whole text, where earlier tokens see later ones.
      stop: a token, or several, at which a continuation ends: its last token is then repeated. None: at none; give
        `tokenizer.eos_id` for the end of a text.
      capture: an address, or several, whose values are returned beside the tokens.
      top_k: sample among the `top_k` likeliest only.
      top_p: sample among the likeliest that together reach the probability `top_p` only.

    Returns:
      int32 `[batch, position + n_tokens]`: the prompts as they came, then the continuations. With `capture`, that and
      `{address: array}`, each as `interp_jax.capture` gives it on all tokens but the last, which the model has not
      read: `[layer batch position ...]` with a position for each column; 0 at padding and after a stop. Of the logits
      and what else follows the last norm there are those from which the new tokens were chosen, `n_tokens` of them.

    Raises:
      TypeError: the model is not a `Decoder`.
      ValueError: what `forward` refuses, more positions than n_ctx, sampling without a key, an edit that would be
        another without the cache, a stop outside the vocabulary.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> models.generate(model, jnp.array([[1, 2, 3]]), 4).shape
      (1, 7)
      >>> tokens, acts = models.generate(model, jnp.array([[1, 2, 3]]), 4, capture="blocks.resid_post")
      >>> acts["blocks.resid_post"].shape
      (1, 1, 6, 8)
    """
    if not isinstance(model, Decoder):
        raise TypeError(f"generate: needs a Decoder, not a {type(model).__name__}, which writes no text")
    if model.config.headless or not model.config.causal:
        why = "has no unembedding" if model.config.headless else "sees the tokens that come after"
        raise ValueError(f"generate: this model {why}, and writes no text")
    _check_sampling(n_tokens, key, temperature, top_k, top_p)
    tokens, attention_mask = check_tokens(model.config, tokens, attention_mask)
    if attention_mask is None:
        attention_mask = np.ones(tokens.shape, bool)
    # Lengths that are known are padded in numpy: nothing compiles anew for them.
    xp: Any = jnp if isinstance(tokens, Tracer) or isinstance(attention_mask, Tracer) else np
    tokens, mask = xp.asarray(tokens), xp.asarray(attention_mask)
    longest = tokens.shape[-1] if xp is jnp else int(mask.sum(-1).max(initial=0))
    n_ctx = model.config.n_ctx
    n_read = longest + max(n_tokens, 1) - 1  # the last token is not read
    if n_read > n_ctx:
        raise ValueError(f"generate: {longest} prompt tokens and {n_tokens} new ones are more than n_ctx {n_ctx}")
    wanted = (capture,) if isinstance(capture, str) else tuple(capture or ())
    if not n_tokens and not wanted:
        return jax.device_put(tokens)
    interventions = {address: as_intervention(edit) for address, edit in (edits or {}).items()}
    for index in (index for edit in interventions.values() for index in edit.positions):
        check_range("generate: position", index, 0, n_read, "count tokens from the first of the prompt")
    stops = np.atleast_1d(np.asarray([] if stop is None else stop, np.int32))
    check_range("generate: stop", stops, 0, model.config.d_vocab, "be a token of the model")
    aligned, aligned_mask = _align(xp, tokens, mask, _bucket(longest, n_ctx))
    run = transform(_generate, _Options(_bucket(n_tokens, n_ctx), wanted), interventions)
    sampling = _sampling(model, key, temperature, top_k, top_p)
    new, captured = run(
        model, jnp.asarray(aligned), jnp.asarray(aligned_mask), jnp.int32(n_tokens), jnp.asarray(stops), sampling
    )
    xp = jnp if isinstance(new, Tracer) else np
    out = jax.device_put(xp.concatenate([tokens, xp.asarray(new)[..., :n_tokens]], axis=-1))
    if not wanted:
        return out
    slots = slots_of_columns(jnp.asarray(mask), aligned.shape[-1], n_tokens)
    return out, {name: value.columns(slots, n_tokens) for name, value in captured.items()}


def _generate(
    options: _Options, edits: Any, model: Decoder, tokens: Array, mask: Array, n_tokens: Array, stop: Any, sampling: Any
) -> tuple[Array, dict[str, Captured]]:
    """Continues prompts that end in the last column by `n_tokens` tokens, at least one: int32 `[*batch slots]`, of
    which these are filled, and what is captured on the way."""
    *batch, n_prompt = tokens.shape
    length = mask.sum(axis=-1, dtype=jnp.int32)
    key_offset = length - n_prompt
    real = jnp.concatenate([mask, jnp.ones((*batch, options.slots), bool)], axis=-1)
    edited = intervene(_step, edits)
    step = capture(edited, options.capture) if options.capture else lambda *args: (edited(*args), {})

    def run(cache: Cache, tokens: Array, positions: Array, offset: Array, start: Any) -> Any:
        places = Places(offset, key_offset, offset + tokens.shape[-1], prompt=length)
        return step(model, cache, tokens, positions, Sight(real, start), places)

    cache = model.empty_cache(tuple(batch), n_prompt + options.slots)
    (logits, cache), captured = run(cache, tokens, count(mask), key_offset, None)
    first = _choose(logits, sampling, jnp.int32(0))
    new = jnp.zeros((*batch, options.slots), jnp.int32).at[..., 0].set(first)
    places = Places(key_offset, key_offset, length, prompt=length)
    known = sites(_step, model, cache, tokens, count(mask), Sight(real), places) if captured else {}
    axes = {name: known[split_address(name)[0]].axes or () for name in captured}
    kept = {name: Captured.of(value, axes[name], n_prompt, options.slots) for name, value in captured.items()}

    def body(carry: Any) -> Any:
        t, token, ended, new, cache, kept = carry
        position = length + t - 1
        (logits, cache), captured = run(cache, token[..., None], position[..., None], position, n_prompt + t - 1)
        token = jnp.where(ended, token, _choose(logits, sampling, t))
        new = lax.dynamic_update_slice_in_dim(new, token[..., None], t, axis=-1)
        kept = {name: kept[name].put(value, n_prompt, t) for name, value in captured.items()}
        return t + 1, token, ended | _stops(token, stop), new, cache, kept

    def goes_on(carry: Any) -> Array:
        return (carry[0] < n_tokens) & ~carry[2].all()

    init = jnp.int32(1), first, _stops(first, stop), new, cache, kept
    t, token, _, new, _, kept = lax.while_loop(goes_on, body, init)
    return jnp.where(jnp.arange(options.slots) < t, new, token[..., None]), kept  # what has ended stays at its end


def _step(
    model: Decoder, cache: Cache, tokens: Array, positions: Array, sight: Sight, places: Places
) -> tuple[Array, Cache]:
    """The logits after the last of `tokens` `[*batch position]`, float32 `[*batch d_vocab]`, and the new cache."""
    batch = ("batch",) * (tokens.ndim - 1)
    frame = Frame(model.config, batch, positions, sight, rotary_of(model.config, positions), places)
    x, new_cache = decode(model, tokens, frame, cache)
    offset: Any = places.offset
    last = replace(places, offset=offset + tokens.shape[-1] - 1)
    logits = model.unembed(x[..., -1:, :], (*batch, "position"), last)
    return logits[..., 0, :].astype(jnp.float32), new_cache


def _stops(token: Array, stop: Array) -> Array:
    """Whether a token is one of int32 `[n]`."""
    return (token[..., None] == stop).any(axis=-1)


def _sampling(
    model: Decoder, key: Any, temperature: float, top_k: int | None, top_p: float | None
) -> tuple[Any, Array, Any] | None:
    """Key, temperature and limits; None for the likeliest token."""
    if not temperature:
        return None
    limits = None
    if top_k is not None or top_p is not None:
        limits = (jnp.int32(top_k or model.config.d_vocab), jnp.float32(top_p or 1.0))
    return key, jnp.float32(temperature), limits


def _choose(logits: Array, sampling: Any, t: Array) -> Array:
    if sampling is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    key, temperature, limits = sampling
    logits = logits / temperature
    if limits is not None:
        logits = jnp.where(logits >= _floor(logits, *limits), logits, -jnp.inf)
    return jax.random.categorical(jax.random.fold_in(key, t), logits).astype(jnp.int32)


def _floor(logits: Array, top_k: Array, top_p: Array) -> Array:
    """The least logit that is still drawn, `[... 1]`."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    chance = jax.nn.softmax(jnp.where(jnp.arange(ordered.shape[-1]) < top_k, ordered, -jnp.inf), axis=-1)
    # A token stays if those before it do not reach top_p; the likeliest one always does.
    before = jnp.cumsum(chance, axis=-1) - chance
    kept = jnp.maximum(((before < top_p) & (chance > 0)).sum(axis=-1, keepdims=True), 1)
    return jnp.take_along_axis(ordered, kept - 1, axis=-1)


def _align(xp: Any, tokens: Any, mask: Any, width: int) -> tuple[Any, Any]:
    """Moves the real tokens of each row to the end of `width` columns."""
    length = mask.sum(axis=-1, keepdims=True)
    column = xp.arange(width) - width + length  # index among the real tokens
    source = xp.clip(mask.argmax(axis=-1)[..., None] + column, 0, tokens.shape[-1] - 1)
    real = column >= 0
    return xp.where(real, xp.take_along_axis(tokens, source, axis=-1), xp.zeros_like(tokens[..., :1])), real


def _bucket(n: int, n_ctx: int) -> int:
    return max(n, min(max(SMALLEST, 1 << (n - 1).bit_length()), n_ctx))


def _check_sampling(n_tokens: int, key: Any, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if n_tokens < 0:
        raise ValueError(f"generate: n_tokens must not be negative, not {n_tokens}")
    if temperature < 0:
        raise ValueError(f"generate: temperature must not be negative, not {temperature}")
    if temperature and key is None:
        raise ValueError("generate: sampling (temperature > 0) needs key=jax.random.key(...)")
    if not temperature and (top_k is not None or top_p is not None):
        raise ValueError("generate: top_k and top_p need a temperature above 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p must be in (0, 1], not {top_p}")
