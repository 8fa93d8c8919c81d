"""What is asked of one prompt: its tokens, the two that are told apart, dictionaries in the place of what writes."""

from collections.abc import Callable, Mapping
import operator
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.core import Tracer
import jax.numpy as jnp

from interp_jax.core import split_address
from interp_jax.explain.debugger.found import Node
from interp_jax.explain.debugger.writers import OUT, STREAM, short
from interp_jax.graphs import replace_mlps
from interp_jax.weights import check_decoder, unembedding


class Ends(NamedTuple):
    """Two tokens that are told apart, and the position at which, as arrays."""

    token: Any
    rather: Any
    position: Any


class Prompt(NamedTuple):
    """One prompt: int tokens `[position]`, which are real, the position that is meant, and what `f` is told of it."""

    tokens: Array
    real: Array
    position: Array
    told: dict[str, Any]


def one_prompt(tokens: Any, mask: Any, position: Any) -> Prompt:
    """The prompt, checked. Raises ValueError where it is not one, or the position is none of its tokens."""
    tokens = jnp.asarray(tokens)
    tokens, mask = (x[0] if x is not None and jnp.ndim(x) == 2 and len(x) == 1 else x for x in (tokens, mask))
    if tokens.ndim != 1 or not jnp.issubdtype(tokens.dtype, jnp.integer) or not tokens.size:
        raise ValueError(f"why: tokens {list(tokens.shape)}: give one prompt, int [position]")
    real = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask).astype(bool)
    if real.shape != tokens.shape:
        raise ValueError(f"why: a mask {list(real.shape)} for tokens {list(tokens.shape)}: they must be of one shape")
    n = len(tokens)
    if position is None:
        where = (n - 1 - jnp.argmax(real[::-1])).astype(jnp.int32)
    else:
        where = jnp.asarray(position, jnp.int32)
        if not isinstance(where, Tracer) and not -n <= int(where) < n:
            raise ValueError(f"why: position {int(where)}: the prompt has {n} tokens, padding included")
        where = jnp.where(where < 0, where + n, where)
    if not isinstance(where, Tracer) and not isinstance(real, Tracer) and not bool(real[int(where)]):
        raise ValueError(f"why: position {int(where)} is padding: give that of a token")
    return Prompt(tokens, real, where, {} if mask is None else {"attention_mask": real})


def question(token: Any, rather: Any, tokenizer: Any) -> tuple[tuple[Array, Array], str]:
    """The numbers of two tokens, and the question as text. Raises ValueError where they are none, or the same."""
    ids = []
    for one in (token, rather):
        if isinstance(one, str):
            if tokenizer is None:
                raise ValueError(f"why: the text {one!r} needs tokenizer=, or give the number of its token")
            one = tokenizer.token_id(one)
        ids.append(one if isinstance(one, (Tracer, jax.Array)) else operator.index(one))
    known = [one for one in ids if isinstance(one, int)]
    if len(known) == 2 and known[0] == known[1]:
        raise ValueError(f"why: both tokens are {token!r}: give two that differ")
    shown = [
        repr(one) if isinstance(one, str) or tokenizer is None else repr(tokenizer.decode([one]))
        for one in (token, rather)
    ]
    return (jnp.asarray(ids[0], jnp.int32), jnp.asarray(ids[1], jnp.int32)), f"{shown[0]} rather than {shown[1]}"


def check_weights(weights: Mapping[str, Array], *tokens: Array) -> None:
    """Raises ValueError where the weights are no decoder's, or a token is not in the vocabulary."""
    check_decoder("why", weights)
    d_vocab = unembedding("why", weights).shape[-1]
    for one in tokens:
        if not isinstance(one, Tracer) and not 0 <= int(one) < d_vocab:
            raise ValueError(f"why: token {int(one)} is not in the vocabulary of {d_vocab}")


def check_node(node: Node, weights: Mapping[str, Array], dictionaries: Mapping[str, Any]) -> None:
    """Raises ValueError where a model has no such head, neuron or feature."""
    sizes = {"head": weights["W_O"].shape[:2], "neuron": weights["W_out"].shape[:2]}
    if node.kind in sizes:
        n_layers, n_units = sizes[node.kind]
        there = node.layer in range(n_layers) and node.unit in range(n_units)
        has = f"{n_layers} layers of {n_units}"
    else:
        features = {(f"{short(address)} feature", split_address(address)[1]): x for address, x in dictionaries.items()}
        one = features.get((node.kind, node.layer))
        there, has = one is not None and node.unit in range(one.d_sae), f"dictionaries at {list(dictionaries)}"
    if not there:
        raise ValueError(f"why: no {node.name}: there are {has}")


def check_dictionaries(dictionaries: Mapping[str, Any] | None) -> dict[str, Any]:
    """The dictionaries by address, in float32. Raises ValueError where one is none that writes to the stream."""
    allowed = (*OUT.values(), *STREAM)
    for address, one in (dictionaries or {}).items():
        name, layer = split_address(address)
        if name not in allowed or layer is None:
            raise ValueError(f"why: a dictionary at {address!r}: give the address of one layer of {', '.join(allowed)}")
        if one.is_stacked or one.reads_sequence or one.normalization != "none":
            raise ValueError(f"why: a {type(one).__name__} at {address!r} is not of one site, linear in what it writes")
    streams = [address for address in dictionaries or {} if split_address(address)[0] in STREAM]
    if len(streams) > 1:
        raise ValueError(f"why: {' and '.join(streams)} both take the residual stream apart: give one of them")
    return {address: one.cast(jnp.float32) for address, one in (dictionaries or {}).items()}


def with_features(f: Callable[..., Any], dictionaries: Mapping[str, Any]) -> Callable[..., Any]:
    """`f` with the features and errors of dictionaries as sites, and with the gradients that it has."""
    return replace_mlps(f, dict(dictionaries), error_gradient=True) if dictionaries else f
