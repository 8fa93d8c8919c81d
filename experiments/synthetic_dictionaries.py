"""Every architecture on planted features: which are recovered, which are plausible, and whether seeds agree.

`python experiments/synthetic_dictionaries.py [--seeds 0 1 2] [--out DIR]` prints a table, writes it as JSON and HTML.
Inputs are centred, E|x| = sqrt(d_in). Sparsity weights are chosen on the first seed: that whose l0 is nearest the
planted; `best` is the best cosine among all. `rare` features are those below the median rate (children, the tail).
Seeds differ in where training starts, archetypal rows too: from one start, as published, their stability would be 1
before training. Of a skip transcoder counts what its skip leaves of the directions. `missed` measures absorption.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from plotly import express
from sklearn.cluster import MiniBatchKMeans

from interp_jax import config
from interp_jax import dictionaries as ds
from interp_jax.data import planted

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


def architectures(cfg: Bench, x: jax.Array) -> dict[str, tuple]:
    """Name -> (class, layout of the inputs, settings of `create`), for inputs `x` of one site."""
    centroids = MiniBatchKMeans(cfg.n_points, n_init=1, random_state=0).fit(np.asarray(x)).cluster_centers_  # pyright: ignore
    k, basis = {"k": cfg.l0}, {"d_sae": cfg.d_in, "k": cfg.l0}
    return {
        "ReLU towards": (ds.ReLU, "one", {"form": "towards"}),
        "ReLU april 2024": (ds.ReLU, "one", {}),
        **{arch.__name__: (arch, "one", {}) for arch in (ds.Tied, ds.PAnneal, ds.Gated, ds.JumpReLU)},
        **{arch.__name__: (arch, "one", k) for arch in (ds.TopK, ds.BatchTopK, ds.Matryoshka)},
        "A-SAE": (ds.Archetypal, "one", k | {"points": centroids}),
        "RA-SAE": (ds.Archetypal, "one", k | {"points": centroids, "delta": cfg.delta}),
        **{arch.__name__: (arch, "pair", {}) for arch in (ds.Transcoder, ds.SkipTranscoder)},
        "CLT": (ds.CrossLayerTranscoder, "layers", {"n_layers": 2}),
        "Crosscoder": (ds.Crosscoder, "sites", {"n_sites": 2}),
        "neurons": (ds.NeuronBasis, "one", basis),
        "random": (ds.RandomDirections, "one", k),
        **{arch.__name__: (arch, "one", basis | {"x": x}) for arch in (ds.PCA, ds.ICA)},
        "NMF": (ds.NMF, "one", {"d_sae": cfg.d_in, "x": x, "n_steps": 200}),  # k of its many do not reconstruct
    }


def arranged(layout: str, x: jax.Array, y: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
    """What an architecture takes, from two sites with the same coefficients in other directions."""
    both = jnp.stack([x, y], 1)
    return {"one": x, "pair": (x, y), "sites": both, "layers": (both, both[:, ::-1])}[layout]


def made(cfg: Bench, arch: Any, settings: dict, batch: Callable, seeds: tuple, weights: tuple) -> list:
    """One dictionary for each seed and weight, trained together, or fitted if it is a baseline."""
    settings = {"d_sae": cfg.d_sae} | settings
    new = [arch.create(jax.random.key(seed), cfg.d_in, **settings) for seed in seeds]
    if not arch.is_trained:
        return new
    start = partial(ds.TrainState.create, n_steps=cfg.n_steps, learning_rate=cfg.learning_rate)
    states = [start(d, sparsity_coefficient=w) for d, w in zip(new, weights, strict=True)]
    keys = jax.random.split(jax.random.key(cfg.data_seed + 2), cfg.n_steps)
    return [state.dictionary for state in ds.train_many(states, map(batch, keys), every=cfg.n_steps)]


def bench(cfg: Bench, kind: str) -> Iterator[dict]:
    """A record for each architecture: every column's mean over seeds, its spread and its values."""
    truth = planted.directions(jax.random.key(cfg.data_seed), 2 * cfg.n_features, cfg.d_in).reshape(2, -1, cfg.d_in)
    draw = partial(planted.sample, kind=kind, rows=truth, l0=cfg.l0, noise=cfg.noise)
    c, sites = draw(jax.random.key(cfg.data_seed + 1), n=cfg.n_eval)
    for name, (arch, layout, settings) in architectures(cfg, ds.Scaling.fit(sites[0])(sites[0])).items():
        scaling = ds.Scaling.fit(arranged(layout, *sites))
        test = scaling(arranged(layout, *sites)), scaling(arranged(layout, *truth)), c > 0
        batch = jax.jit(lambda key, s=scaling, at=layout: s(arranged(at, *draw(key, n=cfg.batch_size)[1])))
        weights = cfg.weights if arch.sparsity_coefficient else (0.0,)
        swept = made(cfg, arch, settings, batch, cfg.seeds[:1] * len(weights), weights)
        found = [ds.recovery(d, *test) for d in swept]
        i = int(np.argmin([abs(each["l0"] - cfg.l0) for each in found]))
        same = [swept[i], *made(cfg, arch, settings, batch, cfg.seeds[1:], weights[i : i + 1] * len(cfg.seeds[1:]))]
        values = [ds.recovery(d, *test) for d in same]
        columns = {column: [value[column] for value in values] for column in values[0]}
        columns["stability"] = [ds.stability(*pair) for pair in combinations(map(ds.written_rows, same), 2)]
        columns["best"] = [max(each["cosine"] for each in found)]
        spread = {f"{column}_spread": float(np.std(v)) for column, v in columns.items()}
        means = {column: float(np.mean(v)) for column, v in columns.items()}
        print(f"{name:16}{weights[i]:4}", *(f"{means[v]:6.3f}±{spread[v + '_spread']:.3f}" for v in means), flush=True)
        yield {"kind": kind, "architecture": name, "weight": weights[i], **means, **spread, "values": columns}


def main(cfg: Bench) -> list[dict]:
    records = []
    for kind in cfg.kinds:
        print(f"\n{kind:16}   w", *(f"{column:>12}" for column in COLUMNS))
        records += bench(cfg, kind)
    cfg.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"settings": asdict(cfg), "records": records}, indent=1, default=str)
    (cfg.out / "synthetic_dictionaries.json").write_text(text.replace("NaN", "null"))
    figure = express.bar(records, "architecture", "cosine", facet_row="kind", error_y="cosine_spread", height=900)
    figure.write_html(cfg.out / "synthetic_dictionaries.html")
    return records


if __name__ == "__main__":
    main(config.load(Bench, "configs/synthetic_dictionaries.toml"))
