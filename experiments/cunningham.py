"""Are sparse features better units of a language model than its neurons and its principal components?

Cunningham et al. 2023, "Sparse autoencoders find highly interpretable features in language models"
(https://arxiv.org/abs/2309.08600), train dictionaries whose decoder is their encoder's transpose (tied). The script has
three parts:

1. Tied dictionaries of every layer of a story model, beside five baselines with as many active features: how much of
   the activations and of the model's cross-entropy they keep, and how well one feature alone tells a frequent token
   from the others (`tells`, a mean AUC). See `cunningham_dictionaries.py`.
2. How many features must change until the microworld's model answers another name, beside PCA.
3. One feature: its tokens, and the logits without it. See `cunningham_features.py` for both.

    python experiments/cunningham.py [--model stories260K] [--text FILE] [--out DIR]

A quarter of an hour on two cores. It prints a table for each part, mean and spread over seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from cunningham_dictionaries import COLUMNS, Kinds, Training, baselines, read, rows, scores, trained
from cunningham_features import SEARCHES, Curves, Indirect, curves, feature, pose, right_answers, told, told_of_feature
import numpy as np
from plotly.colors import qualitative
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

from interp_jax import config, models
from interp_jax.data import corpus
from interp_jax.progress import Progress

DATA = Path(os.environ.get("INTERP_JAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

Layers = dict[str, dict[str, dict[str, list[float]]]]  # site -> kind -> column -> a number for each dictionary


@dataclass(frozen=True)
class Study:
    n_tokens: int
    n_heldout: int
    ratios: tuple[int, ...]
    sparsity: float
    n_fit: int
    every: int  # from one layer that is looked at to the next
    feature_layer: int  # the first from there on that is
    out: Path
    training: Training
    ioi: Indirect
    model: str = str(DATA / "stories260K")
    text: Path = DATA / "tinystories" / "stories.txt"


def check(cfg: Study) -> None:
    """Says what is not there before anything is run; what is not absolute may be a hub id."""
    for name, path in (("model", Path(cfg.model)), ("text", cfg.text)):
        if path.is_absolute() and not path.exists():
            raise SystemExit(f"--{name} {path}: is not there; give another --{name} or set INTERP_JAX_DATA")


def largest(cfg: Study) -> str:
    """The name of the tied dictionaries that the baselines are measured against."""
    return f"tied R={cfg.ratios[-1]}"


def study_layer(cfg: Study, model, site: str, text: corpus.Corpus, begin: Callable[[str], None]) -> tuple[dict, Kinds]:
    """Part 1 at one layer: the scores of every kind, and the tied dictionaries."""
    train, held = rows(text, slice(-cfg.n_heldout)), rows(text, slice(-cfg.n_heldout, None))
    begin(f"{site}: activations")
    x = read(model, site, train)
    begin(f"{site}: tied dictionaries")
    tied: Kinds = {f"tied R={ratio}": trained(cfg.training, x, ratio, cfg.sparsity) for ratio in cfg.ratios}
    begin(f"{site}: their scores")
    found = scores(model, site, tied, held)
    begin(f"{site}: baselines")
    d_in = x.shape[-1]
    k = min(d_in, max(1, round(np.mean(found[largest(cfg)]["l0"]))))  # as many active features
    others = baselines(x, cfg.training.seeds, cfg.ratios[-1] * d_in, k, cfg.n_fit)
    return found | scores(model, site, others, held), tied


def table_of_layers(layers: Layers) -> str:
    """A row for each layer and kind, then each kind's mean over layers."""
    lines = [
        {"layer": site, "kind": name} | {column: runs.cell(one[column], 3) for column in COLUMNS}
        for site, kinds in layers.items()
        for name, one in kinds.items()
    ]
    for name in next(iter(layers.values())):
        means = {column: np.mean([kinds[name][column] for kinds in layers.values()]) for column in COLUMNS}
        lines.append({"layer": "mean", "kind": name} | {column: f"{mean:.3f}" for column, mean in means.items()})
    return runs.table(lines)


def draw(layers: Layers, pairs: Curves, one: dict[str, Any]) -> go.Figure:
    """Part 1 in the first row, part 2 in the second, part 3 in the third."""
    titles = ["fvu by layer", "cross-entropy recovered", "KL, each pair's features", "KL, shared features"]
    titles += ["share of the feature by token", "logits without it"]
    figure = make_subplots(3, 2, subplot_titles=titles, vertical_spacing=0.08)
    colours = dict(zip(dict.fromkeys([*next(iter(layers.values())), *pairs]), qualitative.Dark24, strict=False))

    def line(name: str, values: list, row: int, column: int) -> None:
        """One number or more at each x: as many as there are seeds."""
        figure.add_scatter(
            y=[np.mean(each) for each in values],
            error_y={"array": [runs.spread(each) for each in values]},
            **{"name": name, "line_color": colours[name], "legendgroup": f"{row} {name}", "showlegend": column == 1},
            **{"row": row, "col": column},
        )

    for column, score in enumerate(("fvu", "ce_recovered"), start=1):
        for name in next(iter(layers.values())):
            line(name, [kinds[name][score] for kinds in layers.values()], 1, column)
    for column, search in enumerate(SEARCHES, start=1):
        for name, found in pairs.items():
            line(name, np.transpose(found[search]).tolist(), 2, column)
    for column, key in enumerate(("tokens", "logits"), start=1):
        figure.add_bar(x=list(one[key]), y=list(one[key].values()), showlegend=False, row=3, col=column)
    figure.update_yaxes(range=[-0.1, 1.3], row=1)  # NMF's few rows may be worse than none at all
    return figure.update_layout(height=1400, title="Tied dictionaries and baselines, after Cunningham et al. 2023")


def main(cfg: Study) -> dict[str, Any]:
    """The numbers of the three parts."""
    check(cfg)
    model, tokenizer = models.load(cfg.model, dtype="float32")
    text = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=64, seed=0)
    layers: Layers = {}
    one: dict[str, Any] = {}

    looked_at = range(0, model.config.n_layers, cfg.every)
    with Progress("cunningham", 4 * len(looked_at) + 1) as progress:
        for layer in looked_at:
            site = f"blocks.{layer}.resid_post"
            layers[site], tied = study_layer(cfg, model, site, text, progress.begin)
            if not one and layer >= cfg.feature_layer:
                one = feature(model, tokenizer, site, tied[largest(cfg)][0], text)
            runs.write("cunningham", cfg, {"layers": list(layers.values()), "feature": one})
        progress.begin("indirect objects")
        pairs = pose(cfg.ioi)
        found = curves(cfg.ioi, cfg.training, pairs)

    right, other = right_answers(pairs)
    about = f"microworld, {pairs.site}, {cfg.ioi.n_pairs} pairs, right answers: {right:.0%} and {other:.0%}"
    part_2 = [about, *told(found, "own"), *told(found, "shared")]
    numbers = {"layers": list(layers.values()), "ioi": found, "feature": one}
    figure = draw(layers, found, one)
    runs.finish("cunningham", cfg, numbers, figure, table_of_layers(layers), *part_2, *told_of_feature(one))
    return numbers


if __name__ == "__main__":
    main(config.load(Study, "configs/cunningham.toml"))
