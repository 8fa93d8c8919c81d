"""What do probes of each kind read at every layer and position, and how much of it have they learned themselves?

Held-out accuracy, AUC and calibration of seven kinds of probe; selectivity, the accuracy less that on a control task in
which each word type has a random label (Hewitt and Liang 2019, https://arxiv.org/abs/1909.03368); and compression, how
much shorter an online code makes the labels (Voita and Titov 2020, https://arxiv.org/abs/2003.12298).

    python experiments/probes.py [--model SmolLM2.gguf --data sst2] [--out DIR]

Two minutes on two cores, and some minutes on SmolLM2 with SST-2. All layers and positions of a kind are one compiled
call. Selectivity is told where types recur: at the position of the first adjective, or at the last word.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import labelled
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, models, probes

SITE = "blocks.resid_post"
SCORES = ("accuracy", "auc", "calibration", "log_loss")


@dataclass(frozen=True)
class Probing:
    model: str
    n_train: int
    n_test: int
    batch_size: int  # texts
    l2: float  # in units of the mean square of a layer's activations
    n_components: int
    k: int  # neighbours
    hidden: int
    n_steps: int  # of the MLP
    codes: tuple[str, ...]  # kinds whose description length is measured
    seeds: tuple[int, ...]
    out: Path
    data: Path | None = None  # the folder of SST-2; by default the microworld's reviews


def kinds(cfg: Probing) -> dict[str, Callable[..., Any]]:
    return {
        "logistic": partial(probes.logistic, l2=cfg.l2),
        "ridge": partial(probes.ridge, l2=cfg.l2),
        "class means": probes.mass_mean,
        "discriminant": partial(probes.mass_mean, shrinkage=0.1),
        "PCA": partial(probes.pca, n_components=cfg.n_components, l2=cfg.l2),
        "neighbours": partial(probes.nearest_neighbours, k=cfg.k),
        "MLP": partial(probes.mlp, jax.random.key(0), hidden=cfg.hidden, n_steps=cfg.n_steps, l2=cfg.l2),
    }


def of_kind(cfg: Probing, name: str, fit: Callable[..., Any], x: Any, some: labelled.Texts, held_out: Any, key: Any):
    """`[layer position]` of each score, of the control task's accuracy and of the code."""
    train, test = (x[:, :, ~held_out], some.labels[~held_out]), (x[:, :, held_out], some.labels[held_out])
    k_control, k_code = jax.random.split(key)
    found = probes.scores(fit(*train, n_classes=2), *test)
    control = np.asarray(probes.control_task(k_control, some.types, some.labels))
    by_chance = probes.scores(fit(train[0], control[~held_out], n_classes=2), test[0], control[held_out])
    numbers = {score: getattr(found, score) for score in SCORES} | {"control": by_chance.accuracy}
    numbers["selectivity"] = found.accuracy - by_chance.accuracy
    if name in cfg.codes:
        numbers["compression"] = probes.online_code(k_code, fit, *train, n_classes=2).compression
    return {score: np.asarray(values) for score, values in numbers.items()}


def row(name: str, of: dict, best: tuple[int, int]) -> dict[str, object]:
    cells = {score: runs.cell(of[score][:, *best]) for score in (*SCORES, "control", "selectivity")}
    return (
        {"probe": name}
        | cells
        | ({"compression": runs.cell(of["compression"][:, *best])} if "compression" in of else {})
    )


def draw(cfg: Probing, found: dict, positions: tuple[str, ...]) -> go.Figure:
    figure = go.Figure(layout={"title": f"Held-out accuracy of probes, {cfg.model}, position {positions[-1]!r}"})
    for name, of in found.items():
        runs.curve(figure, of["accuracy"][:, :, -1], name=name, mode="lines+markers")
    runs.curve(figure, found["logistic"]["control"][:, :, -1], name="logistic, control", line={"dash": "dot"})
    return figure.update_layout(xaxis_title="after layer", yaxis_title="accuracy")


def main(cfg: Probing) -> dict:
    """kind -> score -> `[seed layer position]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    every, positions = kinds(cfg), ()

    def study(seed: int, begin) -> dict:
        nonlocal positions
        some, held_out = labelled.texts(tokenizer, cfg.data, cfg.n_train, cfg.n_test, seed)
        positions = some.positions
        x = labelled.activations(model, some, (SITE,), cfg.batch_size, begin)[SITE]
        x = x / np.sqrt((x**2).mean((2, 3), keepdims=True))
        found = {}
        for name, fit in every.items():
            begin(name)
            found[name] = of_kind(cfg, name, fit, x, some, held_out, jax.random.key(seed))
        return found

    def keep(found: dict) -> None:
        runs.write("probes", cfg, {"positions": positions, "kinds": found})

    n_steps = labelled.n_batches(cfg.n_train + cfg.n_test, cfg.batch_size) + len(every)
    found = runs.each(cfg.seeds, n_steps, "probes, seed", study, keep)
    # The place is chosen by the logistic probe, so that all kinds are compared at one.
    accuracy = found["logistic"]["accuracy"].mean(0)
    layer, position = (int(i) for i in np.unravel_index(accuracy.argmax(), accuracy.shape))
    word = 0 if cfg.data is None else len(positions) - 1
    at_word = int(accuracy[:, word].argmax())
    curves = {f"logistic, {name}": found["logistic"]["accuracy"][:, :, i] for i, name in enumerate(positions)}
    text = "\n\n".join(
        [
            runs.layer_table("accuracy", curves),
            f"after layer {layer}, position {positions[position]!r}:",
            runs.table([row(name, of, (layer, position)) for name, of in found.items()]),
            f"where types recur, after layer {at_word}, position {positions[word]!r}:",
            runs.table([row(name, of, (at_word, word)) for name, of in found.items()]),
        ]
    )
    about = (
        f"{cfg.model}, {'SST-2' if cfg.data else 'reviews of the microworld'}: {cfg.n_train} texts, {cfg.n_test} held "
        f"out, seeds {list(cfg.seeds)}, mean ± spread"
    )
    told = story(found, (layer, position), (at_word, word))
    numbers = {"positions": positions, "kinds": found}
    runs.finish("probes", cfg, numbers, draw(cfg, found, positions), about, text, told)
    return found


def story(found: dict, best: tuple[int, int], word: tuple[int, int]) -> str:
    means = {name: of["accuracy"][:, *best].mean() for name, of in found.items()}
    ranked = sorted(means, key=means.__getitem__, reverse=True)
    selective = {name: of["selectivity"][:, *word].mean() for name, of in found.items()}
    most, least = max(selective, key=selective.__getitem__), min(selective, key=selective.__getitem__)
    return (
        f"At the best place, {ranked[0]} reaches {means[ranked[0]]:.2f}, {ranked[-1]} {means[ranked[-1]]:.2f}. "
        f"Where types recur, {most} has most selectivity, {selective[most]:.2f}, {least} least, {selective[least]:.2f}."
    )


if __name__ == "__main__":
    main(config.load(Probing, "configs/probes.toml"))
