"""Which features carry the number of a subject to its verb, and are they enough?

Marks et al. 2024, "Sparse feature circuits" (https://arxiv.org/abs/2403.19647): of each feature of dictionaries, and of
each error that they leave, the effect on the difference of the two verbs' logits by integrated gradients, from `the
dogs near the tree` to its twin `the dog near the tree`. The nodes of the largest effects are a circuit: faithfulness is
what is left of the difference where all other nodes are as in the twin, completeness what is left where the circuit is
as in the twin. Beside it: features alone, errors alone, and nodes at random of those that differ at all. Then the edges
of a small circuit: through which others its nodes act.

    python experiments/sparse_feature_circuits.py [--model GGUF --dictionaries FOLDER --data FILE] [--out DIR]

Two minutes on two cores with the microworld's transcoders and sentences. Else a folder of dictionaries of all layers,
transcoders (see `train_transcoders.py`) or autoencoders, and pairs as the paper publishes them, a JSON object a line;
four minutes with SmolLM2-135M.
Nodes are ranked on some pairs and measured on others; all have as many tokens, so that places mean the same.
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

from interp_jax import config, data, dictionaries, graphs, metrics, models

WAYS = ("largest effects", "features alone", "errors alone", "random")


@dataclass(frozen=True)
class FeatureCircuits:
    model: str
    dictionaries: str  # a folder, or the name of a shipped set
    n: int  # pairs to rank by, and as many to measure on
    steps: int  # of the integral
    sizes: tuple[int, ...]  # of circuits, in nodes
    n_nodes: int  # of the circuit whose edges are told
    seeds: tuple[int, ...]
    out: Path
    data: Path | None = None  # pairs; None for the microworld's sentences


def pairs(cfg: FeatureCircuits, tokenizer: Any, seed: int) -> tuple[list[Any], list[Any]]:
    """Clean and corrupted prompts, answers and distractors, to rank by and to measure on; all of one length."""
    key = jax.random.key(seed)
    if cfg.data is None:
        task = data.tasks.agreement(key, tokenizer, n=8 * cfg.n)
    else:
        task, _ = data.pairs.task(cfg.data, tokenizer)
    lengths = np.asarray(task.mask).sum(1)
    length = np.bincount(lengths).argmax()
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(lengths == length))
    if len(rows) < 2 * cfg.n:
        raise SystemExit(f"--n {cfg.n}: {len(rows)} pairs have {length} tokens, and twice as many are needed")
    start = np.asarray(task.mask[rows[0]]).argmax()  # what stands before is padding
    columns = slice(start, start + length)
    whole = [task.clean[:, columns], task.corrupted[:, columns], task.answers, task.distractors]
    first, second = ([jnp.asarray(x)[some] for x in whole] for some in (rows[: cfg.n], rows[cfg.n : 2 * cfg.n]))
    return first, second


def circuits(effects: graphs.FeatureNodes, size: int, key: jax.Array) -> dict[str, graphs.FeatureNodes]:
    """Circuits of one size, by the way in which their nodes are chosen."""
    zero = partial(jax.tree.map, jnp.zeros_like)
    leaves, tree = jax.tree.flatten(effects)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.uniform(k, x.shape, minval=0.1) * (x != 0) for k, x in zip(keys, leaves, strict=True)]
    ranked = {
        "largest effects": effects,
        "features alone": effects._replace(errors=zero(effects.errors)),
        "errors alone": effects._replace(features=zero(effects.features)),
        "random": jax.tree.unflatten(tree, noise),
    }
    return {
        way: jax.tree.map(lambda mask, x: mask & (x != 0), graphs.largest(scores, size), scores)
        for way, scores in ranked.items()
    }


def study(
    cfg: FeatureCircuits, model: Any, tokenizer: Any, some: Any, seed: int, begin: Callable[[str], None]
) -> dict[str, Any]:
    """By way faithfulness and completeness `[size]`, and how much of the effects is errors'; the strongest edges."""
    (clean, corrupted, *words), (*other, answers, distractors) = pairs(cfg, tokenizer, seed)
    f = partial(models.forward, logits_at=jnp.full(cfg.n, clean.shape[1] - 1))
    begin("effects")
    metric = metrics.logit_diff(*words)
    effects = graphs.node_effects(f, metric, some, steps=cfg.steps)(model, clean, corrupted)
    measure = graphs.feature_faithfulness(f, metrics.logit_diff(answers, distractors), some)
    found: dict[str, Any] = {way: {"faithfulness": [], "completeness": []} for way in WAYS}
    begin("circuits")
    for i, size in enumerate(cfg.sizes):
        made = circuits(effects, size, jax.random.fold_in(jax.random.key(seed), i))
        for way, circuit in made.items():
            told = measure(model, *other, circuit)
            for name, values in found[way].items():
                values.append(float(getattr(told, name)))
    errors, features = (sum(float(jnp.abs(x).sum()) for x in part.values()) for part in effects[::-1])
    found = {way: {name: np.array(values) for name, values in of.items()} for way, of in found.items()}
    found |= {"full": np.float64(told.full), "empty": np.float64(told.empty), "errors": errors / (errors + features)}
    begin("edges")
    edges = graphs.feature_edges(f, metric, some)(model, clean, corrupted, graphs.largest(effects, cfg.n_nodes))
    return found | {"edges": np.array(strongest(edges, tokenizer.to_str_tokens(clean[0])))}


def strongest(edges: graphs.FeatureEdges, words: list[str], n: int = 12) -> list[str]:
    """The strongest edges of a circuit, in words; places by the words of one prompt."""

    def name(node: graphs.FeatureNode) -> str:
        what = "error" if node.index < 0 else str(node.index)
        return f"{node.layer}.{what} at {words[node.position]!r}"

    order = np.argsort(-np.abs(edges.weights), axis=None)[:n]
    ends = [*map(name, edges.nodes), "the difference"]
    places = [np.unravel_index(place, edges.weights.shape) for place in order]
    return [f"{ends[source]} -> {ends[to]} {edges.weights[to, source]:+.3f}" for to, source in places]


def draw(cfg: FeatureCircuits, found: dict[str, Any]) -> go.Figure:
    """Faithfulness, and dotted completeness, by the size of the circuit."""
    figure = go.Figure()
    for way, color in zip(WAYS, ("#0f6fb8", "#2a9d5c", "#d97706", "gray"), strict=True):
        runs.curve(figure, found[way]["faithfulness"], cfg.sizes, name=way, line={"color": color})
        look = {"color": color, "dash": "dot"}
        runs.curve(
            figure, found[way]["completeness"], cfg.sizes, name="without it", line=look, showlegend=way == WAYS[0]
        )
    figure.update_xaxes(type="log", title="nodes of the circuit")
    return figure.update_yaxes(title="share of the difference").update_layout(
        title=f"Agreement, {Path(cfg.model).name}"
    )


def main(cfg: FeatureCircuits) -> dict[str, Any]:
    """By way faithfulness and completeness `[seed size]`; the difference of logits, full and empty `[seed]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    some = dictionaries.load_layers(cfg.dictionaries, dtype="float32")
    one = partial(study, cfg, model, tokenizer, some)
    keep = partial(runs.write, "sparse_feature_circuits", cfg)
    found = runs.each(cfg.seeds, 3, "sparse feature circuits, seed", one, keep)
    rows = [
        {f"{what}, nodes": way} | {str(size): runs.cell(found[way][what][:, i]) for i, size in enumerate(cfg.sizes)}
        for what in ("faithfulness", "completeness")
        for way in WAYS
    ]
    half = len(WAYS)
    about = (
        f"{cfg.model}, features of {cfg.dictionaries}, {cfg.n} pairs to rank by and as many others to measure on, "
        f"seeds {list(cfg.seeds)}, mean ± spread. Difference of the verbs' logits: {runs.cell(found['full'])}, with "
        f"every node as in the twin {runs.cell(found['empty'])}. Errors: {runs.cell(found['errors'])} of the effects."
    )
    told = f"The strongest edges among {cfg.n_nodes} nodes, seed {cfg.seeds[0]}:\n" + "\n".join(found["edges"][0])
    tables = runs.table(rows[:half]), runs.table(rows[half:])
    runs.finish("sparse_feature_circuits", cfg, found, draw(cfg, found), about, *tables, told)
    return found


if __name__ == "__main__":
    main(config.load(FeatureCircuits, "configs/sparse_feature_circuits.toml"))
