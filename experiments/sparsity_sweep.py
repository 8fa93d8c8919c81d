"""How many features are active, and how much is lost, over six decades of the weight of the sparsity term.

`python experiments/sparsity_sweep.py [--model stories260K --text stories.txt] [--seeds 0] [--out DIR]`. Every kind that
has such a weight, at its defaults but for the weight, a factor of its default one; all weights of a kind train in one
program, on the same activations at E|x| = sqrt(d). L0 and FVU are those of 4,096 activations that nothing was trained
on. Beside them SAELens's own steps at its own defaults and rate, factors of its weight, on the same batches.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from plotly import express
import runs
from sparsity_peers import peer, scores

from interp_jax import config, models
from interp_jax import dictionaries as ds
from interp_jax.data import corpus

HELD_OUT = 4096


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


def main(cfg: Sweep) -> dict[str, np.ndarray]:
    model, tokenizer = models.load(cfg.model, dtype="float32")
    read = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=cfg.n_positions, seed=0)
    known, found, last = kinds(cfg, model.config.n_layers), {}, (None, None)
    named = {name: name for name in cfg.kinds} | {f"SAELens {name}": name for name in cfg.peers}
    print(f"{'':24}" + "".join(f"{factor:>16g}" for factor in cfg.factors) + f"{'L0 falls':>12}{'moved':>8}")
    for label, name in named.items():
        cls, where, settings = known[name]
        if where != last[0]:
            options = {"mask": read.real, "skip": read.special, "batch_size": 512, "epochs": 1}
            rows = ds.harvest(models.forward, where, model, read.tokens, **options)
            x = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
            last = where, jax.tree.map(np.asarray, ds.Scaling.fit(x)(x))
        x, held = (jax.tree.map(lambda a, cut=cut: a[cut], last[1]) for cut in np.s_[HELD_OUT:, :HELD_OUT])
        try:
            study = partial(ours, cfg, cls, settings, x, held) if label == name else partial(peer, cfg, name, x, held)
            found[label] = np.stack([study(seed) for seed in (cfg.seeds if label == name else cfg.seeds[:1])])
        except ImportError as error:
            print(f"{label:24}{error.name} is not installed")
            continue
        tell(label, found[label])
        runs.write(cfg.out / "sparsity_sweep.json", cfg, found)  # [seed factor 3]
    draw(cfg, found)
    return found


def tell(label: str, found: np.ndarray) -> None:
    mean, spread = found.mean(0), runs.spread(found)
    fall, moved = mean[:, 0].max() / max(mean[:, 0].min(), 1e-6), mean[:, 2].max()
    for name, column, end in (("L0", 0, f"{fall:12.1f}{moved:8.2f}"), ("FVU", 1, "")):
        cells = [f"{m:9.3f} ±{s:5.2f}" for m, s in zip(mean[:, column], spread[:, column], strict=True)]
        print(f"{label if name == 'L0' else '':24}{name:4}{''.join(cells)}{end}", flush=True)


def draw(cfg: Sweep, found: dict[str, np.ndarray]) -> None:
    table = [
        {
            "kind": kind.removeprefix("SAELens "),
            "by": "SAELens" if kind.startswith("SAELens ") else "interp_jax",
            "factor": factor,
            "score": score,
            "value": each[:, i, j].mean(),
        }
        for kind, each in found.items()
        for i, factor in enumerate(cfg.factors)
        for j, score in enumerate(("L0", "FVU"))
    ]
    options = {"color": "kind", "line_dash": "by", "facet_row": "score", "log_x": True, "markers": True, "height": 900}
    figure = express.line(table, "factor", "value", **options).update_yaxes(matches=None)
    figure.write_html(cfg.out / "sparsity_sweep.html")


if __name__ == "__main__":
    main(config.load(Sweep, "configs/sparsity_sweep.toml"))
