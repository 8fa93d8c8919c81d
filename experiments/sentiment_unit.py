"""Is there a sentiment unit, as Radford et al. (2017, https://arxiv.org/abs/1704.01444) found one in an LSTM?

At each layer the unit is taken that tells positive from negative texts best on one set, and judged on another: neurons
of the MLP, and coordinates of the residual stream, at the last word. Beside it stands the best direction, a logistic
regression on all units of the layer whose penalty is chosen on a quarter of the first set.

    python experiments/sentiment_unit.py [--model SmolLM2.gguf --data sst2] [--out DIR]

A minute on two cores, and some minutes on SmolLM2 with SST-2. It prints the AUC and the accuracy of both by layer, and
the texts at which the best unit is highest and lowest, and draws its histogram by class.
"""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import labelled
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, models, probes

SITES = ("blocks.mlp.post", "blocks.resid_post")
NAMES = {"blocks.mlp.post": "neuron", "blocks.resid_post": "coordinate"}


@dataclass(frozen=True)
class Unit:
    model: str
    n_train: int
    n_test: int
    batch_size: int  # texts
    l2s: tuple[float, ...]  # in units of the mean square of a layer's activations
    n_shown: int  # texts at either end of the best unit
    seeds: tuple[int, ...]
    out: Path
    data: Path | None = None  # the folder of SST-2; by default the microworld's reviews


def last(values: np.ndarray) -> np.ndarray:
    """At the last position, and of a mean square of 1 at each layer, so that one penalty means the same at all."""
    x = values[:, -1]
    return x / np.sqrt((x**2).mean((1, 2), keepdims=True))


def judged(cfg: Unit, x: np.ndarray, y: np.ndarray, held_out: np.ndarray) -> tuple[probes.UnitProbe, dict]:
    """The best unit of each layer, and what it and the best direction reach on held-out texts, `[layer]`."""
    train, test, labels = x[:, ~held_out], x[:, held_out], y[~held_out]
    unit = probes.best_unit(train, labels)
    choosing = np.arange(len(labels)) % 4 == 0
    direction = probes.path(train, labels, cfg.l2s, held_out=choosing).probe
    by_unit, by_direction = (probes.scores(probe, test, y[held_out]) for probe in (unit, direction))
    found = {
        "unit": unit.unit,
        "AUC to choose by": probes.scores(unit, train, labels).auc,
        "AUC": by_unit.auc,
        "accuracy": by_unit.accuracy,
        "AUC of the direction": by_direction.auc,
        "accuracy of the direction": by_direction.accuracy,
    }
    return unit, {name: np.asarray(values) for name, values in found.items()}


def draw(cfg: Unit, values: np.ndarray, y: np.ndarray, title: str) -> go.Figure:
    figure = go.Figure(layout={"title": f"{title}, {cfg.model}", "barmode": "overlay"})
    for label, name in enumerate(("negative", "positive")):
        figure.add_histogram(x=values[y == label], name=name, opacity=0.6, bingroup=1, nbinsx=40)
    return figure.update_layout(xaxis_title="value of the unit at the last word", yaxis_title="held-out texts")


def main(cfg: Unit) -> dict:
    """By site, what the unit and the direction reach: `[seed layer]` each."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    shown: dict = {}

    def study(seed: int, begin) -> dict:
        some, held_out = labelled.texts(tokenizer, cfg.data, cfg.n_train, cfg.n_test, seed)
        acts = labelled.activations(model, some, SITES, cfg.batch_size, begin)
        begin("probes")
        found = {}
        for site in SITES:
            x = last(acts[site])
            unit, found[site] = judged(cfg, x, some.labels, held_out)
            if seed == cfg.seeds[0] and site == SITES[0]:
                layer = int(np.abs(found[site]["AUC to choose by"] - 0.5).argmax())
                values = np.asarray(unit.values(jnp.asarray(x)))[layer, held_out]
                shown.update(layer=layer, unit=int(found[site]["unit"][layer]), values=values)
                shown.update(labels=some.labels[held_out], texts=some.rows(held_out))
        return found

    def keep(found: dict) -> None:
        runs.write("sentiment_unit", cfg, found)

    n_steps = labelled.n_batches(cfg.n_train + cfg.n_test, cfg.batch_size) + 1
    found = runs.each(cfg.seeds, n_steps, "texts, seed", study, keep)
    rows = []
    for layer in range(model.config.n_layers):
        row: dict[str, object] = {"layer": layer}
        for site in SITES:
            of, name = found[site], NAMES[site]
            row |= {
                name: "/".join(map(str, of["unit"][:, layer])),
                f"AUC of {name}": runs.cell(of["AUC"][:, layer]),
                f"direction in {name}s": runs.cell(of["AUC of the direction"][:, layer]),
            }
        rows.append(row)
    order = np.argsort(shown["values"])
    ends = {"highest": order[::-1][: cfg.n_shown], "lowest": order[: cfg.n_shown]}
    examples = []
    for name, which in ends.items():
        for i in which:
            some = shown["texts"]
            text = tokenizer.decode(some.tokens[i][some.mask[i]])
            label = ("negative", "positive")[shown["labels"][i]]
            examples.append({"end": name, "value": f"{shown['values'][i]:.2f}", "label": label, "text": text[-70:]})
    title = f"neuron {shown['unit']} of layer {shown['layer']}"
    about = (
        f"{cfg.model}, {'SST-2' if cfg.data else 'reviews of the microworld'}: {cfg.n_train} texts to choose by, "
        f"{cfg.n_test} held out, seeds {list(cfg.seeds)}, mean ± spread. The best unit of each layer by seed, its AUC "
        "held out, and that of the best direction among all units"
    )
    figure = draw(cfg, shown["values"], shown["labels"], title)
    text = f"{runs.table(rows)}\n\n{title}, held-out texts:\n{runs.table(examples)}"
    runs.finish("sentiment_unit", cfg, found, figure, about, text, story(found))
    return found


def story(found: dict) -> str:
    """The layer is chosen on the texts that chose the unit, seed by seed."""
    parts = []
    for site, name in NAMES.items():
        of = found[site]
        layers = np.abs(of["AUC to choose by"] - 0.5).argmax(1)
        at = (np.arange(len(layers)), layers)
        best = of["AUC of the direction"].max(1)
        parts.append(
            f"The best {name} (layer {'/'.join(map(str, layers))}) has an AUC of {runs.cell(of['AUC'][at])} and an "
            f"accuracy of {runs.cell(of['accuracy'][at])}; the direction of its layer has "
            f"{runs.cell(of['AUC of the direction'][at])} and "
            f"{runs.cell(of['accuracy of the direction'][at])}, of the best layer {runs.cell(best)}."
        )
    same = [len(set(found[site]["unit"][:, k])) == 1 for site in SITES for k in range(found[site]["unit"].shape[1])]
    return " ".join(parts) + f" All seeds choose one and the same unit at {sum(same)} of {len(same)} places."


if __name__ == "__main__":
    main(config.load(Unit, "configs/sentiment_unit.toml"))
