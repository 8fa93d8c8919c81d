"""Sparse feature circuits: which features and errors of dictionaries carry a behaviour, and whether they are enough.

    effect(a) = (a_corrupted - a_clean) . mean over k of d metric / d a,  at a_clean + k/steps (a_corrupted - a_clean)

Integrated gradients go one site and layer at a time; the rest of the run is clean, and what comes later follows. The
error of a dictionary at a position is one node. A circuit is the nodes that are kept, all others as in the corrupted
run: faithfulness is the share of the metric that is left, completeness that of the circuit's complement.
Marks et al. 2024, Sparse feature circuits, https://arxiv.org/abs/2403.19647.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax
import jax.numpy as jnp

from interp_jax.core import Context, Intervention, capture, grads, intervene, sites, transform
from interp_jax.graphs.placing import placed
from interp_jax.graphs.replacement import replace_mlps
from interp_jax.interventions import at, per_layer, replace
from interp_jax.runs import check_counts, check_pair, per_example


class FeatureNodes(NamedTuple):
    """Numbers of the nodes of a circuit of features, or which of them are in it, by the site that is written.

    Attributes:
      features: `[layer position feature]` by site.
      errors: `[layer position]` by site.
    """

    features: Mapping[str, Array]
    errors: Mapping[str, Array]


class FeatureFaithfulness(NamedTuple):
    """How a circuit does: 0 is the run with every node corrupted, 1 the whole model.

    Attributes:
      faithfulness: of the circuit, `[]`.
      completeness: of all that is not in it, `[]`: small where the circuit is whole.
      full, empty: the metric, clean and with every node corrupted, `[]`.
    """

    faithfulness: Array
    completeness: Array
    full: Array
    empty: Array


def node_effects(
    f: Callable[..., Any], metric: Callable[[Any], Array], dictionaries: Any, *, steps: int = 10
) -> Callable[..., FeatureNodes]:
    """What each feature and each error does to a metric, by integrated gradients from the clean to the corrupted run.

    Args:
      f, metric: as in `patching.activation_patch`.
      dictionaries: as `replace_mlps` takes them: autoencoders by address, such as `{"blocks.3.resid_post": sae}`, or
        transcoders by layer.
      steps: of the integral.

    Returns:
      `g(model, clean, corrupted) -> FeatureNodes`, float32, means over the pairs: negative where the clean value is
      what the metric has from.

    Raises:
      ValueError: as `replace_mlps` and `activation_patch`; `steps` below 1; dictionaries of some layers alone.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, _ = models.load("microworld")
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> made = [dictionaries.TopK.create(key, model.config.d_model, 32, 4) for key in keys]
      >>> saes = {f"blocks.{i}.resid_post": sae for i, sae in enumerate(made)}
      >>> top = lambda logits: logits[:, -1, 7]
      >>> effects = graphs.node_effects(models.forward, top, saes, steps=2)
      >>> found = effects(model, jnp.array([[1, 5, 7]]), jnp.array([[1, 9, 7]]))
      >>> found.features["blocks.resid_post"].shape, found.errors["blocks.resid_post"].shape
      ((4, 3, 32), (4, 3))
    """
    check_counts(steps=steps)
    return transform(_node_effects, steps, (f, metric, dictionaries))


def feature_faithfulness(
    f: Callable[..., Any], metric: Callable[[Any], Array], dictionaries: Any
) -> Callable[..., FeatureFaithfulness]:
    """How much of a metric a circuit of features does alone, and how much is left without it.

    Args:
      f, metric, dictionaries: as in `node_effects`.

    Returns:
      `g(model, clean, corrupted, circuit) -> FeatureFaithfulness`; the circuit is a `FeatureNodes` of bool arrays. A
      kept node has what the run gives it, any other what it has in the corrupted run.

    Raises:
      ValueError: as `node_effects`.
    """
    return transform(_faithfulness, None, (f, metric, dictionaries))


def largest(effects: FeatureNodes, n: int) -> FeatureNodes:
    """The circuit of the `n` nodes of the largest effects, bool.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import graphs
      >>> effects = graphs.FeatureNodes({"x": jnp.array([[[1.0, -5.0]]])}, {"x": jnp.array([[2.0]])})
      >>> graphs.largest(effects, 2).features["x"].tolist()
      [[[False, True]]]
    """
    sizes = jnp.concatenate([jnp.abs(x).ravel() for x in jax.tree.leaves(effects)])
    check_counts(n=n)
    least = lax.top_k(sizes, min(n, sizes.size))[0][-1]
    return jax.tree.map(lambda x: jnp.abs(x) >= least, effects)


def _node_effects(steps: int, arrays: Any, *args: Any, **kwargs: Any) -> FeatureNodes:
    (f, metric, dictionaries), (*before, clean, corrupted) = arrays, args
    check_pair("node_effects", clean, corrupted)
    written = written_sites(f, dictionaries, *before, clean, **kwargs)
    g, names = replace_mlps(f, dictionaries, error_gradient=True), node_sites(written)
    there, here = (capture(g, names, output=False)(*before, tokens, **kwargs) for tokens in (corrupted, clean))
    shares = (jnp.arange(steps, dtype=jnp.float32) + 0.5) / steps
    found: dict[str, Array] = {}
    for name, n_layers in written.items():
        own = [f"{name}.features", f"{name}.error"]

        def slopes(place: Array, own: list[str] = own) -> list[Array]:
            layer, share = place[0].astype(jnp.int32), place[1]
            mixed = {x: here[x] + share.astype(here[x].dtype) * (there[x] - here[x]) for x in own}
            edits = {x: at(replace(mixed[x]), layer=layer) for x in own}
            told = grads(intervene(g, edits), mean_of(metric, clean), own)(*before, clean, **kwargs)[2]
            return [told[x][layer] for x in own]

        places = jnp.stack([jnp.repeat(jnp.arange(n_layers, dtype=jnp.float32), steps), jnp.tile(shares, n_layers)], 1)
        for x, slope in zip(own, lax.map(slopes, places), strict=True):
            mean = slope.reshape(n_layers, steps, *slope.shape[1:]).astype(jnp.float32).mean(1)
            found[x] = (there[x] - here[x]).astype(jnp.float32) * mean
    return of_nodes(found, clean)


def _faithfulness(_: None, arrays: Any, *args: Any, **kwargs: Any) -> FeatureFaithfulness:
    (f, metric, dictionaries), (*before, clean, corrupted, circuit) = arrays, args
    check_pair("feature_faithfulness", clean, corrupted)
    written = written_sites(f, dictionaries, *before, clean, **kwargs)
    g, names = replace_mlps(f, dictionaries, error_gradient=True), node_sites(written)
    there = capture(g, names, output=False)(*before, corrupted, **kwargs)

    def score(kept: Callable[[Array], Array]) -> Array:
        edits = {}
        for name in written:
            each = ("features", circuit.features[name]), ("error", circuit.errors[name][..., None])
            for part, mask in each:
                wide = kept(jnp.asarray(mask)).reshape(mask.shape[0], *(1,) * (jnp.ndim(clean) - 1), *mask.shape[1:])
                wide = jnp.broadcast_to(wide, there[f"{name}.{part}"].shape)
                edits[f"{name}.{part}"] = per_layer(_Keep(wide, there[f"{name}.{part}"]))
        return mean_of(metric, clean)(intervene(g, edits)(*before, clean, **kwargs))

    full, empty = score(jnp.ones_like), score(jnp.zeros_like)
    share = lambda kept: (score(kept) - empty) / (full - empty)  # noqa: E731
    return FeatureFaithfulness(share(lambda x: x), share(jnp.logical_not), full, empty)


def node_sites(written: Iterable[str]) -> list[str]:
    """The sites of the nodes of sites that are written."""
    return [f"{name}.{part}" for name in written for part in ("features", "error")]


def mean_of(metric: Callable[[Any], Array], clean: Array) -> Callable[[Any], Array]:
    """The metric as one number, the mean over the examples of `clean`."""
    return lambda out: per_example(metric(out), jnp.shape(clean)[:-1]).mean()


def of_nodes(found: Mapping[str, Array], clean: Array) -> FeatureNodes:
    """Numbers by site of nodes, `[layer *batch position d]`, summed over the examples, and of errors over theirs."""
    over = tuple(range(1, jnp.ndim(clean)))
    each = {name: x.astype(jnp.float32).sum(over) for name, x in found.items()}
    features = {name.removesuffix(".features"): x for name, x in each.items() if name.endswith(".features")}
    return FeatureNodes(features, {site: each[f"{site}.error"].sum(-1) for site in features})


def written_sites(f: Any, dictionaries: Any, *args: Any, **kwargs: Any) -> dict[str, int]:
    """The sites that dictionaries write, with how many layers each has; all of them have one."""
    known = sites(f, *args, **kwargs)
    found = placed(dictionaries, known)
    written: dict[str, int] = {}
    for name in dict.fromkeys(one.written for one in found):
        layers = known[name].layers or ()
        mine = [one.layer for one in found if one.written == name]
        if mine != [None] and tuple(mine) != layers:
            raise ValueError(f"dictionaries: {name!r} has {len(layers)} layers, and {len(mine)} of them a dictionary")
        written[name] = len(layers)
    return written


@partial(jax.tree_util.register_dataclass, data_fields=["kept", "other"], meta_fields=[])
@dataclass(frozen=True)
class _Keep(Intervention):
    """Values of kept places as they are, of the others as they are elsewhere."""

    kept: Array
    other: Array

    def __call__(self, value: Array, ctx: Context) -> Array:
        return jnp.where(self.kept, value, self.other.astype(value.dtype))
