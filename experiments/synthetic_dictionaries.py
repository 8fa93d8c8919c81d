"""Which dictionaries find the features that are there? Every architecture, on inputs whose features are planted.

Inputs are sparse sums of known directions, so that what a dictionary has learned is compared with what is true. The
features of four kinds of world are independent, correlated, hierarchical (a child fires only with its parent, as in the
absorption of Chanin et al. 2024, https://arxiv.org/abs/2409.14507) or heavy-tailed (few are common, most are rare).

1. The world: directions of features at two sites, with the same coefficients, for architectures that read a pair.
2. The contestants: every architecture, and baselines that are fitted or made rather than trained.
3. The weight of the sparsity term is chosen on the first seed: that whose l0 is nearest the planted one.
4. Every other seed trains at that weight; then each dictionary is measured on inputs that nothing was trained on.

    python experiments/synthetic_dictionaries.py [--seeds 0 1 2] [--out DIR]

Six minutes on two cores. It prints a table for each kind of world, mean and spread over seeds: the `cosine` of a
planted feature with its nearest row; that of `common` features, and of `rare` ones (children, the tail); `missed`, the
share of inputs with a common feature on which its row is silent, which absorption shows; `plausible` and `identified`,
see `dictionaries.plausibility` and `identifiability`; `l0`, `fvu`, and the share of `dead` rows; `stability`, how far
seeds agree; `best`, the best cosine among all weights.

Seeds differ in where training starts, archetypal rows too: from one start, as published, their stability would be 1
before training. Of a skip transcoder counts what its skip leaves of the directions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from plotly import express
import runs
from sklearn.cluster import MiniBatchKMeans

from interp_jax import config
from interp_jax import dictionaries as ds
from interp_jax.data import planted
from interp_jax.progress import Progress

COLUMNS = "cosine common rare missed plausible identified l0 fvu dead stability best".split()


@dataclass(frozen=True)
class Bench:
    kinds: tuple[str, ...]
    seeds: tuple[int, ...]
    d_in: int
    n_features: int
    l0: int
    noise: float
    d_sae: int
    n_steps: int
    batch_size: int
    learning_rate: float
    weights: tuple[float, ...]
    n_points: int  # centroids that archetypal rows are made of
    delta: float  # of RA-SAE
    n_eval: int
    data_seed: int
    out: Path


class World(NamedTuple):
    """Planted features, how inputs are drawn from them, and inputs that nothing is trained on."""

    directions: jax.Array  # [site feature d_in]
    draw: Callable[..., tuple[jax.Array, jax.Array]]  # (key, n=) -> coefficients [n feature], inputs [site n d_in]
    active: jax.Array  # [n_eval feature]
    inputs: jax.Array  # [site n_eval d_in]


class Contestant(NamedTuple):
    arch: Any
    layout: str  # of its inputs, see `arranged`
    settings: dict[str, Any]  # of `create`


def plant(cfg: Bench, kind: str) -> World:
    """A world of one kind, at two sites where the same features have other directions."""
    rows = planted.directions(jax.random.key(cfg.data_seed), 2 * cfg.n_features, cfg.d_in)
    rows = rows.reshape(2, cfg.n_features, cfg.d_in)
    draw = partial(planted.sample, kind=kind, rows=rows, l0=cfg.l0, noise=cfg.noise)
    coefficients, inputs = draw(jax.random.key(cfg.data_seed + 1), n=cfg.n_eval)
    return World(rows, draw, coefficients > 0, inputs)


def architectures(cfg: Bench, x: jax.Array) -> dict[str, Contestant]:
    """The contestants by name, for inputs `x` of one site, at E|x| = sqrt(d_in)."""
    clusters = MiniBatchKMeans(cfg.n_points, n_init=1, random_state=0).fit(np.asarray(x))
    points = clusters.cluster_centers_  # what archetypal rows are mixtures of
    k = {"k": cfg.l0}
    basis = {"d_sae": cfg.d_in, "k": cfg.l0}
    found = {
        "ReLU towards": Contestant(ds.ReLU, "one", {"form": "towards"}),
        "ReLU april 2024": Contestant(ds.ReLU, "one", {}),
    }
    found |= {arch.__name__: Contestant(arch, "one", {}) for arch in (ds.Tied, ds.PAnneal, ds.Gated, ds.JumpReLU)}
    found |= {arch.__name__: Contestant(arch, "one", k) for arch in (ds.TopK, ds.BatchTopK, ds.Matryoshka)}
    found["A-SAE"] = Contestant(ds.Archetypal, "one", k | {"points": points})
    found["RA-SAE"] = Contestant(ds.Archetypal, "one", k | {"points": points, "delta": cfg.delta})
    found |= {arch.__name__: Contestant(arch, "pair", {}) for arch in (ds.Transcoder, ds.SkipTranscoder)}
    found["TopKTranscoder"] = Contestant(ds.TopKTranscoder, "pair", k)
    found["CLT"] = Contestant(ds.CrossLayerTranscoder, "layers", {"n_layers": 2})
    found["Crosscoder"] = Contestant(ds.Crosscoder, "sites", {"n_sites": 2})
    found["neurons"] = Contestant(ds.NeuronBasis, "one", basis)
    found["random"] = Contestant(ds.RandomDirections, "one", k)
    found |= {arch.__name__: Contestant(arch, "one", basis | {"x": x}) for arch in (ds.PCA, ds.ICA)}
    found["NMF"] = Contestant(ds.NMF, "one", {"d_sae": cfg.d_in, "x": x, "n_steps": 200})  # k of its do not reconstruct
    return found


def arranged(layout: str, sites: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
    """What an architecture takes, from two sites `[site n d_in]`: CLT's layers read one and write the other."""
    x, y = sites
    both = jnp.stack([x, y], 1)
    return {"one": x, "pair": (x, y), "sites": both, "layers": (both, both[:, ::-1])}[layout]


def trained(cfg: Bench, world: World, one: Contestant, scaling: ds.Scaling, seeds: tuple, weights: tuple) -> list:
    """One dictionary for each seed and weight, trained together on the same inputs; of a baseline it is fitted."""
    settings = {"d_sae": cfg.d_sae} | one.settings
    new = [one.arch.create(jax.random.key(seed), cfg.d_in, **settings) for seed in seeds]
    if not one.arch.is_trained:
        return new

    @jax.jit
    def batch(key: jax.Array) -> Any:
        _, inputs = world.draw(key, n=cfg.batch_size)
        return scaling(arranged(one.layout, inputs))

    start = partial(ds.TrainState.create, n_steps=cfg.n_steps, learning_rate=cfg.learning_rate)
    states = [start(d, sparsity_coefficient=weight) for d, weight in zip(new, weights, strict=True)]
    keys = jax.random.split(jax.random.key(cfg.data_seed + 2), cfg.n_steps)
    return [state.dictionary for state in ds.train_many(states, map(batch, keys), every=cfg.n_steps)]


def study(cfg: Bench, world: World, one: Contestant) -> dict[str, Any]:
    """The record of an architecture: every column's mean over seeds, its spread and its values."""
    inputs, directions = arranged(one.layout, world.inputs), arranged(one.layout, world.directions)
    scaling = ds.Scaling.fit(inputs)
    truth = scaling(inputs), scaling(directions), world.active
    train = partial(trained, cfg, world, one, scaling)

    first, *others = cfg.seeds
    weights = cfg.weights if one.arch.sparsity_coefficient else (0.0,)
    swept = train((first,) * len(weights), weights)
    of_weights = [ds.recovery(d, *truth) for d in swept]
    nearest = int(np.argmin([abs(scores["l0"] - cfg.l0) for scores in of_weights]))
    chosen = weights[nearest]

    of_seeds = [swept[nearest], *train(tuple(others), (chosen,) * len(others))]
    scores = [ds.recovery(d, *truth) for d in of_seeds]
    values = {column: [each[column] for each in scores] for column in scores[0]}
    values["stability"] = [ds.stability(*pair) for pair in combinations(map(ds.written_rows, of_seeds), 2)]
    values["best"] = [max(each["cosine"] for each in of_weights)]
    means = {column: float(np.mean(numbers)) for column, numbers in values.items()}
    spreads = {f"{column}_spread": float(np.std(numbers)) for column, numbers in values.items()}
    return {"weight": chosen, **means, **spreads, "values": values}


def table(records: list[dict[str, Any]]) -> str:
    """A row for each architecture."""
    rows = []
    for each in records:
        cells = {column: f"{each[column]:.3f} ±{each[column + '_spread']:.3f}" for column in COLUMNS}
        rows.append({each["kind"]: each["architecture"], "weight": each["weight"]} | cells)
    return runs.table(rows)


def main(cfg: Bench) -> list[dict[str, Any]]:
    """A record for each kind of world and architecture."""
    records: list[dict[str, Any]] = []
    tables = []
    for kind in cfg.kinds:
        world = plant(cfg, kind)
        x = world.inputs[0]
        contestants = architectures(cfg, ds.Scaling.fit(x)(x))
        with Progress(kind, len(contestants)) as progress:
            for name, one in contestants.items():
                progress.begin(name)
                records.append({"kind": kind, "architecture": name} | study(cfg, world, one))
                runs.write("synthetic_dictionaries", cfg, {"records": records})
        tables.append(table([each for each in records if each["kind"] == kind]))
    look = {"height": 900, "title": "Cosine of planted features with their nearest rows"}
    figure = express.bar(records, "architecture", "cosine", facet_row="kind", error_y="cosine_spread", **look)
    runs.finish("synthetic_dictionaries", cfg, {"records": records}, figure, *tables)
    return records


if __name__ == "__main__":
    main(config.load(Bench, "configs/synthetic_dictionaries.toml"))
