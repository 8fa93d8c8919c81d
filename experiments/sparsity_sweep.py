"""What does the weight of the sparsity term do: how many features are active, and how much is lost, over six decades?

Every kind of dictionary that has such a weight is trained at its defaults but for the weight, which is a factor of its
default one; all weights of a kind train in one program, on the same activations at E|x| = sqrt(d). L0, the active
features, and FVU, the share of the variance that is lost, are those of 4,096 activations that nothing was trained on.
Beside them SAELens's own steps at its own defaults and rate, factors of its weight, on the same batches.

    python experiments/sparsity_sweep.py [--model stories260K --text stories.txt] [--seeds 0] [--out DIR]

About an hour on two cores. It prints L0 and FVU of each kind by factor, by how much L0 falls over all of them, and how
far thresholds moved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from plotly import express
import plotly.graph_objects as go
import runs
from sparsity_peers import peer, scores

from interp_jax import config, models
from interp_jax import dictionaries as ds
from interp_jax.data import corpus

HELD_OUT = 4096
SAELENS = "SAELens "  # stands before the kinds that it has trained


@dataclass(frozen=True)
class Sweep:
    model: str
    layer: int
    kinds: tuple[str, ...]
    peers: tuple[str, ...]
    factors: tuple[float, ...]
    seeds: tuple[int, ...]
    n_tokens: int
    n_positions: int
    d_sae: int
    n_steps: int
    batch_size: int
    out: Path
    text: Path | None = None  # by default the microworld's


def kinds(cfg: Sweep, n_layers: int) -> dict[str, tuple]:
    """Name -> (class, where it reads, settings of `create`)."""
    here = f"blocks.{cfg.layer}"
    one, pair = f"{here}.resid_post", (f"{here}.mlp_in", f"{here}.mlp_out")
    return {
        "ReLU april 2024": (ds.ReLU, one, {}),
        "ReLU towards": (ds.ReLU, one, {"form": "towards"}),
        **{cls.__name__: (cls, one, {}) for cls in (ds.Tied, ds.PAnneal, ds.Gated, ds.JumpReLU)},
        **{cls.__name__: (cls, pair, {}) for cls in (ds.Transcoder, ds.SkipTranscoder)},
        "Crosscoder": (ds.Crosscoder, "blocks.resid_post", {"n_sites": n_layers}),
        "CLT": (ds.CrossLayerTranscoder, ("blocks.mlp_in", "blocks.mlp_out"), {"n_layers": n_layers}),
    }


def activations(cfg: Sweep, model, tokens: corpus.Corpus, where: Any) -> tuple[Any, Any]:
    """What the model does at a site or at several, at E|x| = sqrt(d): what is trained on, and what is held out."""
    options = {"mask": tokens.real, "skip": tokens.special, "batch_size": 512, "epochs": 1}
    batches = ds.harvest(models.forward, where, model, tokens.tokens, **options)
    x = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    x = jax.tree.map(np.asarray, ds.Scaling.fit(x)(x))
    return jax.tree.map(lambda a: a[HELD_OUT:], x), jax.tree.map(lambda a: a[:HELD_OUT], x)


def ours(cfg: Sweep, cls: Any, settings: dict, x: Any, held: Any, seed: int) -> np.ndarray:
    """`[factor 3]`: L0, FVU, and how far thresholds moved, nan where there are none."""
    inputs, target = held if cls.reads_pair else (held, held)
    made = cls.create(jax.random.key(seed), inputs.shape[-1], cfg.d_sae, **settings)
    weights = [factor * cls.sparsity_coefficient for factor in cfg.factors]
    states = [ds.TrainState.create(made, cfg.n_steps, sparsity_coefficient=weight) for weight in weights]
    states = ds.train_many(states, ds.shuffled(x, cfg.batch_size, seed=seed), every=cfg.n_steps)
    found = []
    for one in (state.dictionary for state in states):
        moved = np.abs(one.threshold - made.threshold).mean() if "threshold" in cls.precise else np.nan
        found.append((*scores(one.encode(inputs), one(inputs), target), float(moved)))
    return np.array(found)


def study(score: Callable[[int], np.ndarray], seed: int, begin) -> np.ndarray:
    begin("all weights at once")
    return score(seed)


def table(cfg: Sweep, found: dict[str, np.ndarray]) -> str:
    """Two rows for each kind, a column for each factor."""
    rows = []
    for label, values in found.items():
        l0, fvu, moved = np.moveaxis(values, -1, 0)  # each [seed factor]
        falls = l0.mean(0).max() / max(l0.mean(0).min(), 1e-6)
        about = {"L0 falls": f"{falls:.1f}"}
        if np.isfinite(moved).all():
            about["moved"] = f"{moved.mean(0).max():.2f}"
        for name, score, told in (("L0", l0, about), ("FVU", fvu, {})):
            cells = {f"{factor:g}": runs.cell(score[:, i]) for i, factor in enumerate(cfg.factors)}
            rows.append({"factor of the weight": f"{label}, {name}"} | cells | told)
    return runs.table(rows)


def draw(cfg: Sweep, found: dict[str, np.ndarray]) -> go.Figure:
    """L0 and FVU by factor, a colour for each kind; those of SAELens are dashed."""
    points = [
        {
            "kind": label.removeprefix(SAELENS),
            "by": "SAELens" if label.startswith(SAELENS) else "interp_jax",
            "factor": factor,
            "score": score,
            "value": values[:, i, j].mean(),
        }
        for label, values in found.items()
        for i, factor in enumerate(cfg.factors)
        for j, score in enumerate(("L0", "FVU"))
    ]
    look = {"color": "kind", "line_dash": "by", "facet_row": "score", "log_x": True, "markers": True, "height": 900}
    return express.line(points, "factor", "value", **look).update_yaxes(matches=None)


def main(cfg: Sweep) -> dict[str, np.ndarray]:
    """The scores of every kind, ours and SAELens's, `[seed factor 3]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    tokens = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=cfg.n_positions, seed=0)
    known = kinds(cfg, model.config.n_layers)
    found: dict[str, np.ndarray] = {}

    def keep(label: str, values: np.ndarray) -> None:
        found[label] = values
        runs.write("sparsity_sweep", cfg, found)

    there, x, held = None, None, None
    for label in (*cfg.kinds, *(SAELENS + name for name in cfg.peers)):
        name = label.removeprefix(SAELENS)
        cls, where, settings = known[name]
        if where != there:  # most kinds read the same site as the one before
            there, (x, held) = where, activations(cfg, model, tokens, where)
        if label == name:
            seeds, score = cfg.seeds, partial(ours, cfg, cls, settings, x, held)
        else:  # slow, so that one seed must do
            seeds, score = cfg.seeds[:1], partial(peer, cfg, name, x, held)
        try:
            runs.each(seeds, 1, f"{label}, seed", partial(study, score), partial(keep, label))
        except ImportError as error:
            print(f"{label}: {error.name} is not installed")
    about = (
        f"{cfg.model}, seeds {list(cfg.seeds)}, mean ± spread over seeds, by factor of each kind's default weight. L0 "
        "falls: its largest over its smallest; moved: how far thresholds moved at most, where a kind has any."
    )
    runs.finish("sparsity_sweep", cfg, found, draw(cfg, found), about, table(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Sweep, "configs/sparsity_sweep.toml"))
