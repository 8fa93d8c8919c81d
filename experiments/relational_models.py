"""Four models whose memory of who has what is known, because it is written here: nothing in them is learned.

A context is `e a . e a . ... e`: pairs of an entity and an attribute, and the entity that is asked for. Every block of
the residual stream is one-hot, then turned by a random rotation, so that no test can lean on the axes. All four answer
every question; they differ in what the tokens hold and how it is looked up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

import interp_jax as ij
from interp_jax.data.bindings import Contexts

N_ENTITIES, N_ATTRIBUTES, N_IDS = 8, 8, 6
STOP = N_ENTITIES + N_ATTRIBUTES  # the token `.`
SHARP = 30.0  # of attention: as good as one-hot
SIZES = {"entity": 8, "attribute": 8, "stop": 1, "of": 8, "pair": 64, "id": 6}  # blocks of the stream
FORMS = {
    "matrix binding": "matrix binding",
    "tensor product": "tensor product",
    "binding ID": "multi-token",
    "next token": "multi-token",
}  # the models, and what the tests of composition must say of them


@partial(jax.tree_util.register_dataclass, data_fields=["rotation"], meta_fields=["kind"])
@dataclass(frozen=True)
class Planted:
    rotation: jax.Array
    kind: str


def create(key: jax.Array, kind: str) -> Planted:
    """One of FORMS."""
    size = sum(SIZES.values())
    return Planted(jnp.linalg.qr(jax.random.normal(key, (size, size)))[0], kind)


def forward(model: Planted, tokens: jax.Array) -> jax.Array:
    """The logits of the attributes after the last token, `[batch d_vocab]`."""
    x = {name: jnp.zeros((*tokens.shape, size)) for name, size in SIZES.items()}
    x["entity"] = jax.nn.one_hot(tokens, N_ENTITIES)
    x["attribute"] = jax.nn.one_hot(tokens - N_ENTITIES, N_ATTRIBUTES)
    x["stop"] = (tokens == STOP).astype(jnp.float32)[..., None]
    x = _visit(model, x, 0)
    x = _visit(model, x | WRITE[model.kind](x), 1)
    asked = x["entity"][:, -1]
    context = {name: values[:, :-1] for name, values in x.items()}
    answer = READ[model.kind](context, asked)
    prior = jnp.linspace(0.0, 0.1, N_ATTRIBUTES)  # what is answered where nothing is found
    return jnp.pad(answer + prior, ((0, 0), (N_ENTITIES, 1)), constant_values=-9.0)


def _visit(model: Planted, x: dict[str, jax.Array], layer: int) -> dict[str, jax.Array]:
    """Through the site and back to the blocks."""
    stream = jnp.concatenate(list(x.values()), axis=-1) @ model.rotation
    axes = ("batch", "position", "d_model")
    stream = ij.site(stream, "blocks.resid_pre", layer=layer, axes=axes) @ model.rotation.T
    cuts = [sum(list(SIZES.values())[:k]) for k in range(1, len(SIZES))]
    return dict(zip(SIZES, jnp.split(stream, cuts, axis=-1), strict=True))


def _before(values: jax.Array) -> jax.Array:
    """At each token what the one before it has."""
    return jnp.pad(values, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def _is(kind: str, x: dict[str, jax.Array]) -> jax.Array:
    return x[kind].sum(-1, keepdims=True)


def _write_sum(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The attribute's token holds, beside its own word, its owner's in another block."""
    return {"of": _before(x["entity"]) * _is("attribute", x)}


def _write_product(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The attribute's token holds the product of its owner's word and its own."""
    product = _before(x["entity"])[..., :, None] * x["attribute"][..., None, :]
    return {"pair": product.reshape(*product.shape[:2], -1)}


def _write_ids(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Both tokens hold the number of their pair."""
    number = jnp.cumsum(x["stop"][..., 0], axis=1)
    return {"id": jax.nn.one_hot(number.round().astype(jnp.int32), N_IDS) * (_is("entity", x) + _is("attribute", x))}


def _mix(keys: jax.Array, query: jax.Array, values: jax.Array) -> jax.Array:
    """Attention: the values where the keys are the query's equals, and nothing where none is."""
    scores = jnp.pad(jnp.einsum("bpk,bk->bp", keys, query), ((0, 0), (0, 1)), constant_values=0.5)
    return jnp.einsum("bp,bpv->bv", jax.nn.softmax(SHARP * scores)[:, :-1], values)


def _read_sum(x: dict[str, jax.Array], asked: jax.Array) -> jax.Array:
    return _mix(x["of"], asked, x["attribute"])


def _read_product(x: dict[str, jax.Array], asked: jax.Array) -> jax.Array:
    return jnp.einsum("bpea,be->ba", x["pair"].reshape(*x["pair"].shape[:2], N_ENTITIES, N_ATTRIBUTES), asked)


def _read_ids(x: dict[str, jax.Array], asked: jax.Array) -> jax.Array:
    number = _mix(x["entity"], asked, x["id"])
    return _mix(x["id"] * _is("attribute", x), number, x["attribute"])


def _read_next(x: dict[str, jax.Array], asked: jax.Array) -> jax.Array:
    return _mix(_before(x["entity"]), asked, x["attribute"])


WRITE: dict[str, Callable] = {
    "matrix binding": _write_sum,
    "tensor product": _write_product,
    "binding ID": _write_ids,
    "next token": lambda x: {},
}
READ: dict[str, Callable] = {
    "matrix binding": _read_sum,
    "tensor product": _read_product,
    "binding ID": _read_ids,
    "next token": _read_next,
}


def contexts(key: jax.Array, n: int, n_pairs: int = 3, slot: int = 0) -> Contexts:
    """n contexts in the four models' language, whose words are drawn anew for each."""
    drawn = [
        jnp.stack([jax.random.permutation(k, size)[: n_pairs + 1] for k in jax.random.split(key, n)])
        for key, size in zip(jax.random.split(key), (N_ENTITIES, N_ATTRIBUTES), strict=True)
    ]
    entities, attributes = drawn[0], drawn[1] + N_ENTITIES
    pairs = jnp.stack([entities[:, :-1], attributes[:, :-1], jnp.full((n, n_pairs), STOP)], axis=-1)
    starts = 3 * jnp.arange(n_pairs)
    return Contexts(
        tokens=jnp.concatenate([pairs.reshape(n, -1), entities[:, slot, None]], axis=1),
        entities=entities,
        attributes=attributes,
        columns={"entity": starts, "attribute": starts + 1},
        clauses=jnp.stack([starts, starts + 3], axis=1),
        asked=jnp.array([3 * n_pairs]),
        slot=slot,
    )
