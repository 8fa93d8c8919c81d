"""Does an attribution graph say what its features do?

Ameisen et al. 2025, Circuit tracing (https://transformer-circuits.pub/2025/attribution-graphs/methods.html), explain a
prompt by a graph of features; what it says is tried by changing them (Lindsey et al. 2025, On the biology of a large
language model). Of prompts of who is given something, each of the features with most influence is suppressed. The graph
predicts what that does to the explained logit, by its direct effects and through other features. Measured it is where
all else is held (which must be equal), in the replacement model with the prompt's errors and patterns, and in the model
itself. Then the features with most influence are suppressed together, beside other active ones at random and beside
random features that write as much.

    python experiments/circuit_tracing.py [--model path/to/model --transcoders FOLDER] [--out DIR]

Two minutes on two cores. Transcoders of another model are those of `train_transcoders.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

import interp_jax as ij
from interp_jax import config, data, dictionaries, graphs, models
from interp_jax.interventions import add, at, chain, replace

PREDICTED = ("direct effects", "through features")
MEASURED = ("all else held", "replacement model", "model, patterns held", "model")
GROUPS = ("most influence", "random active", "random, as large")


@dataclass(frozen=True)
class Tracing:
    model: str
    transcoders: str  # a folder, or the name of a shipped set
    n_prompts: int
    n_single: int  # features that are suppressed one by one
    n_together: int  # features that are suppressed together
    n_features: int  # of a graph
    seeds: tuple[int, ...]
    out: Path


def measured(run: Any, tokens: Any, changes: graphs.Changes, target: int) -> list[float]:
    """By how much the logit moves without the mean of all: in the held run, the replacement model, the model."""
    effects, replaced = run
    told = []
    for effect in effects:
        got = effect(tokens, changes)
        told.append(got.logits[-1] - got.logits_before[-1])
    told.insert(1, replaced(tokens, changes))
    return [float(moved[target] - moved.mean()) for moved in told]


def runs_of(model: Any, transcoders: Any, tokens: Any) -> tuple[Any, Any]:
    """What is measured of changes of features, as functions of tokens and changes."""
    f, whole = models.forward, (0, model.config.n_layers)
    ways = {"layers": whole}, {}, {"hold_patterns": False}
    effects = [partial(graphs.feature_effects(f, transcoders, **way), model) for way in ways]
    held = graphs.hold(f, transcoders)(model, tokens)
    g = graphs.replace_mlps(f, transcoders, held)
    before = g(model, tokens)[-1]

    def replaced(tokens: Any, changes: graphs.Changes) -> Any:
        edits: dict[str, Any] = {}
        each = zip(changes.layer.tolist(), changes.position, changes.index, changes.value, strict=True)
        for layer, position, index, value in each:
            edit = at((add if changes.is_added else replace)(value), position=position, feature=index)
            edits.setdefault(f"blocks.{layer}.mlp_out.features", []).append(edit)
        return ij.intervene(g, {name: chain(*some) for name, some in edits.items()})(model, tokens)[-1] - before

    return effects, replaced


def study(
    cfg: Tracing, model: Any, tokenizer: Any, transcoders: Any, seed: int, begin: Callable[[str], None]
) -> dict[str, Any]:
    task = data.tasks.ioi(jax.random.key(seed), tokenizer, n=cfg.n_prompts)
    rng, found = np.random.default_rng(seed), {name: [] for name in ("scores", "single", "together")}
    for number in range(cfg.n_prompts):
        begin(f"prompt {number}")
        tokens, target = jnp.asarray(task.clean[number][np.asarray(task.mask[number])]), int(task.answers[number])
        graph = graphs.attribution_graph(
            models.forward, model, transcoders, tokens, targets=[target], tokenizer=tokenizer, n_features=cfg.n_features
        )
        node, run = int(graph.find("logit")[0]), runs_of(model, transcoders, tokens)
        features = graph.find("feature")
        best = features[np.argsort(-graph.influence()[features])]
        single = []
        for one in best[: cfg.n_single]:
            changes = graphs.change(graph, [int(one)])
            says = [float(graphs.predicted(graph, changes, through=way)[node]) for way in (False, True)]
            single.append([*says, *measured(run, tokens, changes, target)])
        top = graphs.change(graph, best[: cfg.n_together].tolist())
        others = rng.permutation(best[cfg.n_together :])[: cfg.n_together]
        control = graphs.random_changes(jax.random.key(seed + number), transcoders, graph, top)
        together = [top, graphs.change(graph, others.tolist()), control]
        found["together"].append([measured(run, tokens, changes, target) for changes in together])
        found["single"].append(single)
        found["scores"].append(graph.scores())
    return {name: np.array(values) for name, values in found.items()}


def main(cfg: Tracing) -> dict[str, Any]:
    """Scores `[seed prompt 2]`, moves of logits `[seed prompt feature way]` and `[seed prompt group way]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    transcoders = dictionaries.load_layers(cfg.transcoders, dtype="float32")
    one = partial(study, cfg, model, tokenizer, transcoders)
    found = runs.each(cfg.seeds, cfg.n_prompts, "tracing, seed", one, partial(runs.write, "circuit_tracing", cfg))
    single = found["single"].reshape(len(cfg.seeds), -1, len(PREDICTED) + len(MEASURED))

    def correlation(a: int, b: int) -> str:
        return runs.cell(
            [float(np.corrcoef(of_seed[:, a], of_seed[:, len(PREDICTED) + b])[0, 1]) for of_seed in single]
        )

    agreed = runs.table(
        [
            {"correlation": says} | {way: correlation(i, j) for j, way in enumerate(MEASURED)}
            for i, says in enumerate(PREDICTED)
        ]
    )
    moved = found["together"].mean(1)
    groups = runs.table(
        [
            {f"{cfg.n_together} features suppressed": name}
            | {way: runs.cell(moved[:, i, j]) for j, way in enumerate(MEASURED)}
            for i, name in enumerate(GROUPS)
        ]
    )
    scores = found["scores"].mean(1)
    apart = np.abs(single[..., 0] - single[..., len(PREDICTED)]).max()
    about = (
        f"{cfg.model}, {cfg.n_prompts} prompts of indirect objects, seeds {list(cfg.seeds)}: mean ± spread over seeds "
        f"of the move of the answer's logit, less the mean of all. Replacement score {runs.cell(scores[:, 0])}, "
        f"completeness score {runs.cell(scores[:, 1])}. Where all else is held, direct effects are off by {apart:.1e}."
    )
    runs.finish("circuit_tracing", cfg, found, draw(cfg, single), about, agreed, groups)
    return found


def draw(cfg: Tracing, single: np.ndarray) -> go.Figure:
    """What each feature's suppression does, by what the graph says through other features."""
    figure = go.Figure(layout={"title": f"Features suppressed one by one, {Path(cfg.model).name}: the answer's logit"})
    points = single.reshape(-1, single.shape[-1])
    for j, way in enumerate(MEASURED[1:], start=1):
        figure.add_scatter(x=points[:, 1], y=points[:, len(PREDICTED) + j], mode="markers", name=way, opacity=0.6)
    ends = [points[:, 1].min(), points[:, 1].max()]
    figure.add_scatter(x=ends, y=ends, mode="lines", name="as predicted", line={"dash": "dot", "color": "gray"})
    return figure.update_xaxes(title="predicted by the graph, through features").update_yaxes(title="measured")


if __name__ == "__main__":
    main(config.load(Tracing, "configs/circuit_tracing.toml"))
