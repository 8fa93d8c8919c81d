"""Why this token rather than that one here: what each node writes, does directly, and does by way of all others.

    D = logit of a token - logit of another, at one position
    magnitude |w|,    direct  w . dD/d(resid, the last norm's scale held),    gradient  x dD/dx

of a node that writes w to the residual stream, of activation x. Direct effects and the constant of the last norm add up
to D. Of what reads in the middle the same is asked: of a neuron's or feature's pre-activation, of what a head writes
(patterns held), and of an attention score, to which what its query side wrote adds up, and so does its key side.
OpenAI's Transformer Debugger, 2024, https://github.com/openai/transformer-debugger.
Caveat: a slope is the first order of what an ablation does (`ablate`); a direct effect says nothing of later layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import math
from typing import Any, NamedTuple

from jax import Array
from jax.core import Tracer
import jax.numpy as jnp

from interp_jax.core import SiteInfo, intervene, split_address, transform
from interp_jax.explain.debugger.found import Node, Why
from interp_jax.explain.debugger.prompt import (
    Ends,
    Prompt,
    check_dictionaries,
    check_node,
    check_weights,
    one_prompt,
    question,
)
from interp_jax.explain.debugger.tracing import Aim, Found, Run, difference, held, reading, scored, slopes, start
from interp_jax.explain.debugger.writers import OUT, STREAM, UNITS, reads_at, short, writers, written_at
from interp_jax.interventions import at, scale

PATTERN, SCORES = "blocks.attn.pattern", "blocks.attn.attn_scores"
SMALL = 2.0**-10  # of the query, so that a soft cap of the scores does nothing; a power of two rounds nothing
HIDDEN = 1e20  # scores of keys that a query does not see are larger, or not finite
SOURCES = {  # what transcoders read, by what else reads there
    "head": ("blocks.resid_pre", "blocks.ln1.normalized"),
    "neuron": ("blocks.mlp_in", "blocks.resid_mid", "blocks.ln2.normalized"),
}


def why(
    f: Callable[..., Any],
    token: Any,
    rather: Any,
    *,
    position: Any = None,
    dictionaries: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
) -> Callable[..., Why]:
    """Why a model gives one token a higher logit than another.

    Args:
      f: `(model, tokens)` that gives the logits of every position, such as `models.forward`; where there is a mask it
        is given as the keyword `attention_mask`.
      token, rather: the two, by number or, with a tokenizer, as text.
      position: which token's prediction, an index of the row, padding included; negative from its end. None: the last
        that is no padding.
      dictionaries: address -> dictionary, in the place of what it reconstructs: `blocks.2.mlp_out` (a transcoder too),
        `blocks.2.attn_out`, or one of the residual stream, of all that was written before it.
      tokenizer: gives tokens their text.

    Returns:
      `g(model, weights, tokens, mask=None) -> Why`, for `models.weights(model)`, int tokens `[position]` or
      `[1 position]`, and a mask of their shape, False at padding.

    Raises:
      ValueError: a token that is not in the vocabulary, both the same; (when called) a position out of range or at
        padding, tokens that are not one prompt, a model that does not say what it writes, or that has no unembedding.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import explain, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park , John gave a ring to"))
      >>> found = explain.why(models.forward, " Mary", " John", tokenizer=tokenizer)(
      ...     model, models.weights(model), tokens
      ... )
      >>> found.top(1, kinds=["head"])[0].node.kind, float(found.value) > 0
      ('head', True)
    """
    ends, title = question(token, rather, tokenizer)
    chosen = check_dictionaries(dictionaries)

    def g(model: Any, weights: Mapping[str, Array], tokens: Any, mask: Any = None) -> Why:
        run = one_prompt(tokens, mask, position)
        check_weights(weights, *ends)
        given = Ends(*ends, run.position), run.real, weights, model, run.tokens
        found = transform(_why, None, (f, chosen))(*given, **run.told)
        return _told(title, tokenizer, run, run.position, found)

    return g


def why_active(
    f: Callable[..., Any],
    node: Node | str,
    *,
    toward: tuple[Any, Any] | None = None,
    through: str | None = None,
    position: Any = None,
    dictionaries: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
) -> Callable[..., Why]:
    """Why a node is as active as it is: what was written before it, by its direct effect on the node's pre-activation.

    Of a head this is what it writes, along its own direction or along the slope of a difference of two logits, with
    where it looks held: what was carried there. Why it looks there is asked by `why_attends`.

    Args:
      f, dictionaries, tokenizer: as in `why`. A dictionary of the node's own place is not in its own way.
      node: a head, a neuron, or a feature of one of the dictionaries, as in `Why.top` or by its name.
      toward: of a head, two tokens as in `why`: the value is then what the slope of their difference makes of what it
        writes (that is its "gradient" there). None: the norm of what it writes.
      through: of a gated neuron, "pre" (the gate, which is the default) or "pre_linear", the other factor.
      position: of the two tokens, as in `why`.

    Returns:
      As `why`; the value is the pre-activation, or what the head writes.

    Raises:
      ValueError: as `why`; a node that is not there, or of which nothing is upstream.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import explain, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park , John gave a ring to"))
      >>> found = explain.why_active(models.forward, "head 3.1 at 14")(model, models.weights(model), tokens)
      >>> bool(abs(found.total("direct") - found.value) < 1e-3)
      True
    """
    node = Node.read(node) if isinstance(node, str) else node
    feature = node.kind.endswith(" feature")
    if node.unit is None or node.layer is None or not (feature or node.kind in UNITS):
        raise ValueError(
            f"why_active: {node}: give a head, a neuron or a feature; others are not made of what is upstream"
        )
    if through not in (None, "pre", "pre_linear") or (through and node.kind != "neuron"):
        raise ValueError(f"why_active: through={through!r}: 'pre' or 'pre_linear', of a neuron")
    ends, title = (None, "") if toward is None else question(*toward, tokenizer)
    chosen = check_dictionaries(dictionaries)
    title = f"{node}" + (f", toward {title}" if title else "")

    def g(model: Any, weights: Mapping[str, Array], tokens: Any, mask: Any = None) -> Why:
        own = one_prompt(tokens, mask, node.position)
        check_weights(weights, *(ends or ()))
        check_node(node, weights, chosen)
        there = None if ends is None else Ends(*ends, one_prompt(tokens, mask, position).position)
        place = jnp.int32(node.layer), jnp.int32(node.unit), own.position
        run = transform(_why_active, (node.kind, through or "pre"), (f, chosen))
        found = run(place, there, own.real, weights, model, own.tokens, **own.told)
        return _told(title, tokenizer, own, own.position, found)

    return g


def why_attends(
    f: Callable[..., Any],
    layer: int,
    head: int,
    query: int,
    key: int,
    *,
    dictionaries: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
) -> Callable[..., Why]:
    """Why a head looks from one token at another: what wrote the query, with the key held, and what wrote the key.

    Args:
      f, dictionaries, tokenizer: as in `why`.
      layer, head: the head, counted as queries are.
      query, key: the two tokens, indices of the row.

    Returns:
      As `why`; the value is the score before a soft cap and the softmax, to which the "query" scores add up, and the
      "key" scores too.

    Raises:
      ValueError: as `why`; a layer, a head or a position that is not there, a key that the query does not see.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import explain, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park , John gave a ring to"))
      >>> found = explain.why_attends(models.forward, 2, 1, 14, 2)(model, models.weights(model), tokens)
      >>> bool(abs(found.total("query") - found.value) < 1e-3 > abs(found.total("key") - found.value))
      True
    """
    chosen = check_dictionaries(dictionaries)

    def g(model: Any, weights: Mapping[str, Array], tokens: Any, mask: Any = None) -> Why:
        run, other = (one_prompt(tokens, mask, place) for place in (query, key))
        check_weights(weights)
        check_node(Node("head", layer, head, query), weights, {})
        places = jnp.int32(layer), jnp.int32(head), run.position, other.position
        given = places, run.real, weights, model, run.tokens
        found = transform(_why_attends, None, (f, chosen))(*given, **run.told)
        if not isinstance(found.value, Tracer) and not abs(float(found.value)) < HIDDEN:
            raise ValueError(f"why_attends: head {layer}.{head} does not see {key} from {query}: give what it sees")
        return _told(f"head {layer}.{head} from {query} to {key}", tokenizer, run, run.position, found)

    return g


def _why(_: None, arrays: Any, ends: Ends, real: Array, weights: Any, *args: Any, **told: Any) -> Found:
    (f, dictionaries), call = arrays, (args, told)
    run = start(f, dictionaries, call)
    aim = difference(run.known, ends)
    value, _, around = slopes(run.f, aim, run.addresses, call)
    last = (run.known["blocks.resid_post"].layers or (0,))[-1]
    slope, constant = reading(held(f, run.known), aim, f"blocks.{last}.resid_post", None, call)
    parts = scored(run, weights, dictionaries, real, around, {"direct": slope})
    return Found(value, {"direct": constant}, parts, run.logits[ends.position])


def _why_active(
    options: tuple[str, str], arrays: Any, node: Any, ends: Any, real: Array, weights: Any, *args: Any, **told: Any
) -> Found:
    (kind, through), (f, dictionaries), call = options, arrays, (args, told)
    others = {address: one for address, one in dictionaries.items() if kind != f"{short(address)} feature"}
    own = {address: one for address, one in dictionaries.items() if address not in others}
    layer, unit, position = node
    run = start(f, others, call)
    if kind == "head":
        aim, read = (
            _head(f, run, node, ends, weights, call),
            Reads("blocks.resid_pre", layer, before=reads_at("head", layer, run.known)),
        )
    elif kind == "neuron":
        aim = Aim(f"blocks.mlp.{through}", lambda pre: pre[layer, position, unit].astype(jnp.float32))
        read = Reads("blocks.mlp_in", layer, before=reads_at("neuron", layer, run.known))
    else:
        ((address, dictionary),) = own.items()
        source, read = _source(address, dictionary, run.known)

        def pre(x: Array) -> Array:
            return dictionary.pre_activations(x[position].astype(jnp.float32))[unit]

        aim = Aim(source, pre)
    value, _, around = slopes(run.f, aim, run.addresses, call)
    still = held(f, run.known, *([PATTERN] if kind == "head" else []))
    slope, constant = reading(still, aim, read.address, read.layer, call)
    window = {"since": read.since, "before": read.before}
    parts = scored(run, weights, others, real, around, {"direct": slope}, **window)
    return Found(value, {"direct": constant}, parts, run.logits[position])


def _head(f: Any, run: Run, node: Any, ends: Any, weights: Any, call: Any) -> Aim:
    """What a head writes, along itself or along the slope of a difference."""
    layer, unit, position = node
    (heads,) = (part for part in writers(weights, run.acts, run.known, {}) if part.kind == "head")
    one = heads.one(layer, position, unit)
    if ends is None:
        along = one.vectors()[0, 0, 0]
        along = along / jnp.maximum(jnp.linalg.norm(along), 1e-12)
    else:
        _, _, around = slopes(f, difference(run.known, ends), (OUT["head"],), call)
        along = around[OUT["head"]][layer, position].astype(jnp.float32)

    def written(z: Array) -> Array:
        here = z[layer, position, unit].astype(jnp.float32)[None, None, None]
        return replace(one, values=here).effects(along[None])[0, 0, 0]

    return Aim(UNITS["head"], written)


class Reads(NamedTuple):
    """What a value reads: the address of a residual stream, a layer of it, and when what counts was written."""

    address: str
    layer: Any
    since: Any = -math.inf
    before: Any = math.inf


def _source(address: str, dictionary: Any, known: Mapping[str, SiteInfo]) -> tuple[str, Reads]:
    """What a dictionary encodes, and what that reads."""
    layer, place = split_address(address)[1] or 0, written_at(address)
    if not dictionary.reads_pair:
        # Of what a block writes the block's own heads or neurons are upstream.
        since = -math.inf if split_address(address)[0] in STREAM else place
        return address, Reads(address, None, since, place if since < place else place + 0.1)
    name = split_address(dictionary.sites[0])[0] if dictionary.sites else "blocks.mlp_in"
    kinds = [kind for kind, sites in SOURCES.items() if name in sites]
    if not kinds:
        raise ValueError(f"why_active: a dictionary that reads {name!r}: what is upstream of that is not known")
    scope, rest = name.split(".", 1)
    read = Reads({"head": "blocks.resid_pre", "neuron": "blocks.mlp_in"}[kinds[0]], layer)
    return f"{scope}.{layer}.{rest}", read._replace(before=reads_at(kinds[0], layer, known))


def _why_attends(_: None, arrays: Any, places: Any, real: Array, weights: Any, *args: Any, **told: Any) -> Found:
    (f, dictionaries), call = arrays, (args, told)
    layer, head, query, key = places
    run = start(f, dictionaries, call)
    if missing := [name for name in ("blocks.attn.q", "blocks.attn.k", SCORES) if name not in run.known]:
        raise ValueError(f"why_attends: the model has no site {missing[0]!r}: it must say where heads look")
    q, k = (f"blocks.attn.{'rot_' * (f'blocks.attn.rot_{x}' in run.known)}{x}" for x in "qk")
    small = {q: at(scale(SMALL), layer=layer)}
    aim = Aim(SCORES, lambda scores: scores[layer, head, query, key].astype(jnp.float32) / SMALL)
    value, _, around = slopes(intervene(run.f, small), aim, run.addresses, call)
    sides, constants = {}, {}
    for side, other in (("query", k), ("key", q)):
        still = held(intervene(f, small), run.known, other)
        sides[side], constants[side] = reading(still, aim, "blocks.resid_pre", layer, call)
    parts = scored(run, weights, dictionaries, real, around, sides, before=reads_at("head", layer, run.known))
    return Found(value, constants, parts, run.logits[query])


def _told(title: str, tokenizer: Any, run: Prompt, position: Any, found: Found) -> Why:
    value, constants, parts, logits = found
    return Why(title, tokenizer, run.tokens, run.real, position, value, constants, parts, logits)
