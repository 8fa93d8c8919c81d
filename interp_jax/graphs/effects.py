"""Direct linear effects: what embeddings, features and errors put into a feature's pre-activation, or into a logit.

    effect of feature s on target t = activation_s * decoder_s . d(t) / d(written),  everything between them held

d(t)/d(written) is one backward pass through the run in which attention patterns, norm denominators and MLP outputs are
held; a chunk of targets goes back together. What is left is the constants': biases, positions, `b_enc` and `b_dec`.
Where sparse heads stand in for attention its outputs are held too, and what a head carries to a position is a sum over
those that it looks at.
Ameisen et al. 2025, Circuit tracing, https://transformer-circuits.pub/2025/attribution-graphs/methods.html.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interp_jax.core import Context, Intervention, capture, freeze, intervene, skipping, transform
from interp_jax.interventions import add, per_layer

EMBED, END = "embed", "unembed.in"
GROUP, GROUPS = 2**24, 16  # numbers of decoder rows that are gathered at once at most, and in how many groups at least


class Sites(NamedTuple):
    """Where a graph reads and writes, of MLPs and then of sparse heads, and what it holds; all names of sites."""

    read: tuple[str, ...]
    written: tuple[str, ...]
    frozen: tuple[str, ...]
    cross: bool  # whether features write to all later layers, rows of `layer * d`


@partial(jax.tree_util.register_dataclass, data_fields=["embed", "errors", "flowing", "skips"], meta_fields=[])
@dataclass(frozen=True)
class Sources:
    """What flows, beside the features. A place is a layer of a site that is written, one site after another.

    Attributes:
      embed: `[position d_model]`.
      errors: `[place position d]`.
      flowing: what features and errors write together, `[place position d]`.
      skips: what goes around features, `[place d_in d_out]`, or None.
    """

    embed: Array
    errors: Array
    flowing: Array
    skips: Array | None


@partial(jax.tree_util.register_dataclass, data_fields=["rows", "place", "activation"], meta_fields=[])
@dataclass(frozen=True)
class Blocks:
    """The active features, in blocks of one layer and position each.

    Attributes:
      rows: int32 `[block slot]`, the feature's row of the table of decoders.
      place: int32 `[block]`, `place * n_positions + position`, or the position of features that write to all layers.
      activation: `[block slot]`, 0 where there is none.
    """

    rows: Array
    place: Array
    activation: Array


@partial(jax.tree_util.register_dataclass, data_fields=["layer", "weights", "vector", "bias"], meta_fields=[])
@dataclass(frozen=True)
class Targets:
    """What effects are on: `sum over positions of weight vector . x + bias`, of what a site has at a layer.

    Attributes:
      layer: int32 `[target]`; None: the site has none.
      weights: `[target position]`: 1 at one position, or where a head looks.
      vector: `[target *d]`.
      bias: `[target]`.
    """

    layer: Array | None
    weights: Array
    vector: Array
    bias: Array


class Rows(NamedTuple):
    """Effects on each target, `[target ...]`: of each block's features `[block slot]`, of errors `[place
    position]`, of embeddings `[position]`, of the constants `[]`."""

    features: Array
    errors: Array
    embed: Array
    constant: Array


def constants(f: Callable[..., Any], sites: Sites, addresses: tuple[str, ...]) -> Callable[..., dict[str, Array]]:
    """What sites have where embeddings, features and errors are all zero.

    Returns:
      `g(sources, *args) -> {address: value}`, as a capture gives them.
    """
    return transform(_constants, (sites, addresses), f)


def _constants(options: tuple[Sites, tuple[str, ...]], f: Any, sources: Sources, *args: Any, **kwargs: Any) -> Any:
    sites, addresses = options
    run = _held_run(sites, f, sources.skips, args, kwargs, addresses)
    zeros = jnp.zeros_like(sources.embed), jnp.zeros_like(sources.flowing)
    there, flowing = jax.jvp(run, zeros, (sources.embed, sources.flowing))
    return {name: there[name] - flowing[name] for name in addresses}


def effects(f: Callable[..., Any], sites: Sites, address: str, mesh: Mesh | None = None) -> Callable[..., Rows]:
    """Effects on what a site has.

    Returns:
      `g(targets, constant, sources, blocks, decoders, *args) -> Rows`; `constant` is what `constants` gives of the
      site, and decoders are the table of rows `[row d]`.
    """
    return transform(_effects, (sites, address, mesh), f)


def _effects(
    options: tuple[Sites, str, Mesh | None],
    f: Any,
    targets: Targets,
    constant: Array,
    sources: Sources,
    blocks: Blocks,
    decoders: Array,
    *args: Any,
    **kwargs: Any,
) -> Rows:
    sites, address, mesh = options
    layered = targets.layer is not None
    run = _held_run(sites, f, sources.skips, args, kwargs, (address,))
    zeros = jnp.zeros_like(sources.embed), jnp.zeros_like(sources.errors)
    there, back = jax.vjp(run, *zeros)
    if mesh is not None:
        spread = NamedSharding(Mesh(mesh.devices, mesh.axis_names), PartitionSpec(mesh.axis_names))
        targets = jax.tree.map(lambda x: lax.with_sharding_constraint(x, spread), targets)
    # Targets stand behind the layers, over which a model may scan: nothing is then laid out anew.
    value, n = there[address], len(targets.vector)
    weighed = jnp.einsum("tp,t...->tp...", targets.weights, targets.vector)
    told, axis = weighed, 0
    if layered:
        told, axis = jnp.zeros((value.shape[0], n, *value.shape[1:]), value.dtype), 1
        told = told.at[targets.layer, jnp.arange(n)].set(weighed)
    together = jax.vmap(lambda told: back({address: told}), in_axes=axis, out_axes=(0, 1))
    n_layers = len(sources.errors) // len(sites.written)
    n_used = jnp.int32(n_layers) if targets.layer is None else targets.layer.max() + 1
    embed, written = (skipping(together, n_layers, n_used) if layered else together)(told)
    known = constant[targets.layer] if layered else constant[None]
    return Rows(
        _of_features(written, blocks, decoders, n_layers, n_used, cross=sites.cross),
        _of_errors(written, sources.errors, n_layers, n_used),
        jnp.einsum("tpd,pd->tp", embed, sources.embed),
        (weighed * known).reshape(n, -1).sum(-1) + targets.bias,
    )


def _of_errors(written: Array, errors: Array, n_layers: int, n_used: Array) -> Array:
    """Slopes at what is written, `[place target position d]`, zero but in the first layers -> effects `[target place
    position]`."""
    n_places, n_targets, n_positions, _ = written.shape
    slopes, values = (x.reshape(-1, n_layers, *x.shape[1:]) for x in (written, errors))  # [site layer ...]

    def layer(i: Array, found: Array) -> Array:
        return found.at[:, :, i].set(jnp.einsum("stpd,spd->tsp", slopes[:, i], values[:, i]))

    empty = jnp.zeros((n_targets, len(slopes), n_layers, n_positions), written.dtype)
    return lax.fori_loop(0, n_used, layer, empty).reshape(n_targets, n_places, n_positions)


def _of_features(
    written: Array, blocks: Blocks, decoders: Array, n_layers: int, n_used: Array, *, cross: bool
) -> Array:
    """The same slopes -> effects `[target block slot]`."""
    _, n_targets, n_positions, d = written.shape

    def group(some: Blocks) -> Array:
        rows = decoders[some.rows].astype(jnp.float32)  # [block slot d], or [block slot layer*d]
        if cross:
            slopes = written[:, :, some.place]  # [layer target block d]
            found = jnp.einsum("ltbd,bsld->bts", slopes, rows.reshape(*rows.shape[:2], n_layers, d))
        else:
            slopes = written[some.place // n_positions, :, some.place % n_positions]  # [block target d]
            found = jnp.einsum("btd,bsd->bts", slopes, rows)
        return found * some.activation[:, None]

    n_blocks, n_slots = blocks.rows.shape
    n_groups = min(n_blocks, max(GROUPS, bucket(n_blocks * n_slots * decoders.shape[-1] // GROUP)))
    parts = jax.tree.map(lambda x: x.reshape(n_groups, -1, *x.shape[1:]), blocks)
    # Blocks stand in the order of their layers, those of sparse heads behind the others.
    layers = 0 if cross else parts.place // n_positions % n_layers
    needed = ((layers < n_used) & (parts.activation != 0).any(-1)).any(-1)
    n_needed = jnp.where(needed, jnp.arange(1, n_groups + 1), 0).max()

    def one(i: Array, found: Array) -> Array:
        return found.at[i].set(group(jax.tree.map(lambda x: x[i], parts)))

    empty = jnp.zeros((n_groups, n_blocks // n_groups, n_targets, n_slots), jnp.float32)
    found = lax.fori_loop(0, n_needed, one, empty).reshape(n_blocks, n_targets, n_slots)
    return jnp.moveaxis(found, 1, 0)


def bucket(n: int) -> int:
    """The next power of two, so that few programs serve all prompts."""
    return 1 << (max(n, 1) - 1).bit_length()


def _held_run(sites: Sites, f: Any, skips: Array | None, args: Any, kwargs: Any, wanted: tuple[str, ...]) -> Any:
    """A function of what is added to the embeddings and to what is written, linear since all else is held."""
    held, n = freeze(f, sites.frozen), len(sites.written)

    def run(embed: Array, written: Array) -> dict[str, Array]:
        each = written.reshape(n, -1, *written.shape[1:])
        around = [None] * n if skips is None else skips.reshape(n, -1, *skips.shape[1:])
        parts = zip(sites.read, sites.written, each, around, strict=True)
        sources = {name: per_layer(_Source(change, skip, read)) for read, name, change, skip in parts}
        edits = {EMBED: add(embed), **sources}
        found = capture(intervene(held, edits), wanted, output=False)(*args, **kwargs)
        return {name: value.astype(jnp.float32) for name, value in found.items()}

    return run


@partial(jax.tree_util.register_dataclass, data_fields=["change", "skip"], meta_fields=["read"])
@dataclass(frozen=True)
class _Source(Intervention):
    """A value that is held, plus a change; what goes around the features still depends on what is read."""

    change: Array
    skip: Array | None
    read: str

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset() if self.skip is None else frozenset({self.read})

    def __call__(self, value: Array, ctx: Context) -> Array:
        out = lax.stop_gradient(value) + self.change.astype(value.dtype)
        if self.skip is None:
            return out
        around = ctx.reads[self.read].astype(jnp.float32) @ self.skip
        return out + (around - lax.stop_gradient(around)).astype(value.dtype)
