"""Nodes ablated: what the difference of two logits, and what the model says, would be without them.

An ablation is an edit of the activation itself, so that a head's write, a neuron or a feature is 0, or its mean over
texts, and all that comes later runs anew. OpenAI's Transformer Debugger, 2024.
Caveat: zero is not what a node is on other texts; the mean is, and says what is lost of this prompt's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import capture, intervene, sites, split_address, transform
from interp_jax.explain.debugger.found import Node, likeliest
from interp_jax.explain.debugger.prompt import (
    Ends,
    check_dictionaries,
    check_node,
    check_weights,
    one_prompt,
    question,
    with_features,
)
from interp_jax.explain.debugger.tracing import difference
from interp_jax.explain.debugger.writers import UNITS, short
from interp_jax.interventions import at, chain, replace, zero
from interp_jax.runs import SEQUENCES, in_chunks

EMBEDS = ("embed", "pos_embed")


@partial(jax.tree_util.register_dataclass, data_fields=["value", "logits"], meta_fields=["tokenizer"])
@dataclass(frozen=True)
class Ablated:
    """What a model says without some nodes; of several runs with a leading axis.

    Attributes:
      value: float32 `[]`, the difference of the two logits, before a cap.
      logits: float32 `[d_vocab]` at the position, as the model gives them.
      tokenizer: gives tokens their text, or None.
    """

    value: Any
    logits: Any
    tokenizer: Any

    def __getitem__(self, run: int) -> "Ablated":
        """One of several runs."""
        return Ablated(self.value[run], self.logits[run], self.tokenizer)

    def likeliest(self, n: int = 5) -> list[tuple[str, float]]:
        """The tokens with the highest logits, and these, of one run."""
        return likeliest(self.logits, self.tokenizer, n)


def ablate(
    f: Callable[..., Any],
    nodes: Sequence[Node | str] | Node | str,
    token: Any,
    rather: Any,
    *,
    means: Mapping[str, Any] | None = None,
    position: Any = None,
    dictionaries: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
) -> Callable[..., Ablated]:
    """A run without some nodes, all at once.

    Args:
      f, token, rather, position, dictionaries, tokenizer: as in `why`.
      nodes: heads, neurons, features and errors of dictionaries, embeddings; as such or by name.
      means: from `node_means`, what the nodes are set to; None: zero.

    Returns:
      `g(model, weights, tokens, mask=None) -> Ablated`.

    Raises:
      ValueError: as `why`; no node, one that is not there, or a bias, which is no activation.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import explain, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park , John gave a ring to"))
      >>> without = explain.ablate(
      ...     models.forward, ["head 2.1 at 14", "head 3.2 at 14"], " Mary", " John", tokenizer=tokenizer
      ... )
      >>> found = without(model, models.weights(model), tokens)
      >>> float(found.value) < 10, len(found.likeliest(3))
      (True, 3)
    """
    some = _read(nodes)
    ends, _ = question(token, rather, tokenizer)
    chosen = check_dictionaries(dictionaries)

    def g(model: Any, weights: Mapping[str, Array], tokens: Any, mask: Any = None) -> Ablated:
        run = one_prompt(tokens, mask, position)
        check_weights(weights, *ends)
        places = [_place(node, weights, chosen, len(run.tokens)) for node in some]
        given = [numbers for _, numbers in places], Ends(*ends, run.position)
        how = transform(_ablate, tuple(site for site, _ in places), (f, chosen, means))
        value, logits = how(*given, model, run.tokens, **run.told)
        return Ablated(value, logits, tokenizer)

    return g


def ablations(
    f: Callable[..., Any],
    nodes: Sequence[Node | str],
    token: Any,
    rather: Any,
    *,
    means: Mapping[str, Any] | None = None,
    position: Any = None,
    dictionaries: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    chunk: int = SEQUENCES,
) -> Callable[..., Ablated]:
    """Runs without each node by itself: nodes of one kind are one program, many at once.

    Args:
      f, nodes, token, rather, means, position, dictionaries, tokenizer: as in `ablate`.
      chunk: how many nodes are ablated at once, each in a run of its own.

    Returns:
      `g(model, weights, tokens, mask=None) -> Ablated`, of the nodes in their order: `value [node]`, `logits [node
      d_vocab]`.

    Raises:
      ValueError: as `ablate`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import explain, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park , John gave a ring to"))
      >>> each = explain.ablations(
      ...     models.forward, ["head 2.1 at 14", "neuron 3.3 at 14"], " Mary", " John", tokenizer=tokenizer
      ... )
      >>> each(model, models.weights(model), tokens).value.shape
      (2,)
    """
    some = _read(nodes)
    ends, _ = question(token, rather, tokenizer)
    chosen = check_dictionaries(dictionaries)

    def g(model: Any, weights: Mapping[str, Array], tokens: Any, mask: Any = None) -> Ablated:
        run = one_prompt(tokens, mask, position)
        check_weights(weights, *ends)
        places = [_place(node, weights, chosen, len(run.tokens)) for node in some]
        order, parts = [], []
        for site in dict.fromkeys(site for site, _ in places):
            index = [i for i, (here, _) in enumerate(places) if here == site]
            numbers = jnp.array([places[i][1] for i in index], jnp.int32)
            how = transform(_ablations, (site, min(chunk, len(index))), (f, chosen, means))
            parts.append(how(numbers, Ends(*ends, run.position), model, run.tokens, **run.told))
            order += index
        back = jnp.argsort(jnp.array(order))
        values, logits = (jnp.concatenate(each)[back] for each in zip(*parts, strict=True))
        return Ablated(values, logits, tokenizer)

    return g


def node_means(
    f: Callable[..., Any], *, dictionaries: Mapping[str, Any] | None = None
) -> Callable[..., dict[str, Array]]:
    """The mean activation of every node over the tokens of some texts, for `ablate`.

    Args:
      f, dictionaries: as in `why`.

    Returns:
      `g(model, tokens, mask=None) -> site -> float32 [layer ...]`, for int tokens `[batch position]`.

    Example:
      >>> import jax
      >>> from interp_jax import explain, models
      >>> model, _ = models.load("microworld")
      >>> texts = jax.random.randint(jax.random.key(0), (4, 12), 3, 641)
      >>> explain.node_means(models.forward)(model, texts)["blocks.attn.z"].shape
      (4, 4, 32)
    """
    chosen = check_dictionaries(dictionaries)

    def g(model: Any, tokens: Any, mask: Any = None) -> dict[str, Array]:
        tokens = jnp.asarray(tokens)
        if tokens.ndim != 2 or not tokens.size:
            raise ValueError(f"node_means: tokens {list(tokens.shape)}: give some texts, int [batch position]")
        real = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask).astype(bool)
        told = {} if mask is None else {"attention_mask": real}
        return transform(_means, None, (f, chosen))(real, model, tokens, **told)

    return g


def _means(_: None, arrays: Any, real: Array, *args: Any, **told: Any) -> dict[str, Array]:
    f, dictionaries = arrays
    known = sites(f, *args, **told)
    addresses = [*(name for name in EMBEDS if name in known), *UNITS.values()]
    addresses += [f"{address}.{what}" for address in dictionaries for what in ("features", "error")]

    def mean(x: Array) -> Array:
        weights = real.astype(jnp.float32).reshape(*real.shape, *(1,) * (x.ndim - 2))
        return (x.astype(jnp.float32) * weights).sum((0, 1)) / weights.sum()

    return capture(with_features(f, dictionaries), dict.fromkeys(addresses, mean), output=False)(*args, **told)


def _read(nodes: Any) -> list[Node]:
    several = [nodes] if isinstance(nodes, (Node, str)) else list(nodes)
    if not several:
        raise ValueError("ablate: no node is given")
    return [Node.read(node) if isinstance(node, str) else node for node in several]


def _place(
    node: Node, weights: Mapping[str, Array], dictionaries: Mapping[str, Any], n_positions: int
) -> tuple[str, tuple[int, int, int]]:
    """The address of a node's activation, and its layer, unit and position there."""
    if not -n_positions <= node.position < n_positions:
        raise ValueError(f"ablate: {node}: the prompt has {n_positions} tokens, padding included")
    if node.kind.endswith("bias"):
        raise ValueError(f"ablate: {node}: a bias is no activation; ablate what is active")
    place = node.layer or 0, node.unit or 0, node.position % n_positions
    if node.kind in EMBEDS:
        return node.kind, place
    if node.kind in UNITS:
        check_node(node, weights, dictionaries)
        return UNITS[node.kind], place
    if node.kind.endswith(" feature"):
        check_node(node, weights, dictionaries)
    for address in dictionaries:
        for kind, what in (("feature", "features"), ("error", "error")):
            if node.kind == f"{short(address)} {kind}" and split_address(address)[1] == node.layer:
                return f"{address}.{what}", place
    raise ValueError(f"ablate: {node}: there is no such node; dictionaries are at {list(dictionaries)}")


def _edit(site: str, numbers: Any, means: Any) -> Any:
    layer, unit, position = numbers
    if means is None:
        value = zero()
    else:  # the same at every position
        value = replace(means[site][:, None] if site in UNITS.values() else means[site])
    if site in EMBEDS or site.endswith(".error"):
        return at(value, position=position)
    if site == UNITS["head"]:
        return at(value, layer=layer, head=unit, position=position)
    layers = {"layer": layer} if site == UNITS["neuron"] else {}
    return at(at(value, axis=-1, index=unit), **layers, position=position)


def _value(arrays: Any, edits: Mapping[str, Any], ends: Ends, args: Any, told: Any) -> tuple[Array, Array]:
    f, dictionaries, _ = arrays
    aim = difference(sites(f, *args, **told), ends)
    g = intervene(with_features(f, dictionaries), edits)
    logits, there = capture(g, aim.site)(*args, **told)
    return aim.of(there[aim.site]), logits[ends.position].astype(jnp.float32)


def _ablate(where: tuple[str, ...], arrays: Any, numbers: Any, ends: Ends, *args: Any, **told: Any) -> Any:
    edits: dict[str, list[Any]] = {}
    for site, place in zip(where, numbers, strict=True):
        edits.setdefault(site, []).append(_edit(site, place, arrays[2]))
    return _value(arrays, {site: chain(*some) for site, some in edits.items()}, ends, args, told)


def _ablations(options: tuple[str, int], arrays: Any, numbers: Array, ends: Ends, *args: Any, **told: Any) -> Any:
    site, chunk = options

    def one(place: Array) -> tuple[Array, Array]:
        layer, unit, position = place
        return _value(arrays, {site: _edit(site, (layer, unit, position), arrays[2])}, ends, args, told)

    return in_chunks(one, numbers, chunk)
