"""Which way to find a circuit is best, by MIB's measure?

Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark" (https://arxiv.org/abs/2504.13151), rank all edges
of a model by a method, run the circuits of the first 0.1 to 100 % of them, all else from the corrupted prompts, and
take two areas of their faithfulness: CPR, under it, with the largest scores first, and CMD, between it and 1, with the
largest sizes first. The script does so on indirect objects, for

- patching: of each edge itself, taken out of the clean run; and of each node put into the corrupted one
- AtP*, of nodes; EAP, by the slopes at the clean prompts, as published, and at the corrupted ones
- EAP-IG along inputs and along activations
- edge pruning: a mask over edges that is learned
- a random order, which is what these have to beat

Edges are ranked on some prompts and measured on others. A node's score counts for edges as the lower of both ends', so
that circuits are of ever more nodes. With level = "nodes" whole nodes are ranked and measured, an edge's score counting
for its sender; edge patching and the learned mask, which run circuits of edges, are left out: those take long to
compile over many layers.

    python experiments/ioi_mib.py [--model gpt2] [--out DIR]

Two and a half minutes on two cores, and some five of SmolLM2. It prints both areas by method, and draws the curves of
the second.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from ioi import pose
from ioi_heads import HEADS, Begin, Problem
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import circuits, config, models, patching

MLPS = "blocks.mlp_out"
OTHERS = 1000  # added to a seed: that of the prompts that are measured


@dataclass(frozen=True)
class MIB:
    model: str
    n: int  # prompts to rank by, and as many to measure on
    seeds: tuple[int, ...]
    steps: int  # of EAP-IG
    level: Literal["edges", "nodes"]  # of the circuits
    mask_steps: int  # of the learned mask
    out: Path


Nodes = tuple[jax.Array, jax.Array]  # scores of heads [layer head] and of MLPs [layer]
Scores = dict[str, Nodes | patching.Edges]


def score(cfg: MIB, problem: Problem, key: jax.Array, begin: Begin) -> Scores:
    """Every method's scores of nodes or of edges, by its name."""
    f, metric, args = problem.f, problem.metric, problem.args
    ours, random = jax.random.split(key)
    over = {HEADS: ("layer", "head"), MLPS: ("layer",)}
    found: Scores = {}
    for name, method in (("node patching", patching.activation_patch), ("AtP*", patching.atp_star)):
        begin(name)
        heads, mlps = (method(f, metric, where, axes)(*args) for where, axes in over.items())
        found[name] = heads, mlps
    begin("EAP")
    slopes, (model, clean, corrupted) = patching.edge_attribution(f, metric), args
    found["EAP"] = jax.tree.map(jnp.negative, slopes(model, corrupted, clean))  # what is lost from clean to corrupted
    found["EAP, at corrupted"] = edges = slopes(*args)
    for along in ("inputs", "activations"):
        begin(f"EAP-IG, {along}")
        ways = patching.edge_attribution(f, metric, steps=cfg.steps, along=along)
        found[f"EAP-IG, {along}"] = ways(*args)
    if cfg.level == "edges":
        begin("edge patching")
        found["edge patching"] = patch_edges(problem, edges)
        begin("edge pruning")
        found["edge pruning"] = circuits.edge_mask(f, metric, n_steps=cfg.mask_steps)(*args, ours)
    noise = jax.random.normal(random, edges.scores.shape)
    found["random"] = patching.Edges(noise, edges.senders, edges.receivers)
    return found


def patch_edges(problem: Problem, edges: patching.Edges) -> patching.Edges:
    """What is lost of the clean run's metric where a single edge brings the corrupted run's value."""
    whole = circuits.EdgeCircuit.top(edges, edges.scores.size)
    senders, receivers = jnp.nonzero(whole.kept)
    kept = jax.vmap(lambda s, r: whole.kept.at[s, r].set(False))(senders, receivers)
    without = circuits.EdgeCircuit(kept, edges.senders, edges.receivers)
    lost = 1 - circuits.faithfulness(problem.f, problem.metric)(*problem.args, without).share
    scores = jnp.zeros(edges.scores.shape).at[senders, receivers].set(lost)
    return patching.Edges(scores, edges.senders, edges.receivers)


def nested(scores: Nodes | patching.Edges, like: patching.Edges, level: str) -> circuits.Circuit | circuits.EdgeCircuit:
    """The circuits of the largest scores, of MIB's ten fractions of all nodes or edges: `[fraction ...]`."""
    fractions = np.array(circuits.FRACTIONS)
    if level == "edges":
        edges = between(*scores, like) if isinstance(scores, tuple) else scores
        total = int(circuits.EdgeCircuit.top(edges, edges.scores.size).size)
        return circuits.EdgeCircuit.top(edges, jnp.array((fractions * total).astype(int)))
    heads, mlps = scores if isinstance(scores, tuple) else (scores.sent("head"), scores.sent("mlp"))
    heads = heads.reshape(len(mlps), -1)
    return circuits.Circuit.top(heads, mlps, jnp.array((fractions * (heads.size + mlps.size)).astype(int)))


def between(heads: jax.Array, mlps: jax.Array, like: patching.Edges) -> patching.Edges:
    """Edges that score as the lower of their two nodes; embeddings and logits are in every circuit."""

    def of(name: str) -> jax.Array:
        kind, _, place = name.partition(" ")
        if kind in ("embed", "logits"):
            return jnp.float32(jnp.inf)
        layer, _, head = place.partition(".")
        if kind == "mlp":
            return mlps[int(layer)]
        shared = heads.shape[1] // sum(other.startswith(f"{kind} {layer}.") for other in like.senders + like.receivers)
        return heads[int(layer), int(head) : int(head) + shared].max()

    senders, receivers = (jnp.stack([of(name) for name in names]) for names in (like.senders, like.receivers))
    return patching.Edges(jnp.minimum(senders[:, None], receivers), like.senders, like.receivers)


def study(cfg: MIB, model, tokenizer, seed: int, begin: Begin) -> dict[str, dict]:
    """Faithfulness `[fraction]` with the largest scores first and with the largest sizes first, and the areas."""
    found = score(cfg, pose(cfg.n, model, tokenizer, seed), jax.random.key(seed), begin)
    begin("circuits")
    other = pose(cfg.n, model, tokenizer, seed + OTHERS)
    like = found["EAP"]
    assert isinstance(like, patching.Edges)
    faithful = circuits.faithfulness(other.f, other.metric)
    told = {}
    for name, scores in found.items():
        signed, by_size = (
            faithful(*other.args, nested(some, like, cfg.level)).share
            for some in (scores, jax.tree.map(jnp.abs, scores))
        )
        areas = {"CPR": circuits.areas(signed).cpr, "CMD": circuits.areas(by_size).cmd}
        told[name] = jax.tree.map(np.asarray, {"largest scores": signed, "largest sizes": by_size} | areas)
    return told


def draw(cfg: MIB, found: dict) -> go.Figure:
    """Faithfulness by fraction, a line for each method."""
    figure = go.Figure()
    for name, told in found.items():
        look = {"dash": "dot", "color": "gray"} if name == "random" else {}
        runs.curve(figure, told["largest sizes"], circuits.FRACTIONS, mode="lines+markers", name=name, line=look)
    figure.update_xaxes(type="log", title=f"fraction of {cfg.level}, the largest sizes first")
    figure.update_yaxes(title="faithfulness")
    return figure.update_layout(title=f"Faithfulness by size of the circuit, {cfg.model}")


def main(cfg: MIB) -> dict:
    """Ranks and measures on every seed, and gives what was found, each number with the seed as its first axis."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    if not runs.edges_add_up(model):
        raise SystemExit(f"ioi_mib: {cfg.model} norms what its heads write, so it has no edges to rank: take another")
    keep = partial(runs.write, "ioi_mib", cfg)
    n_steps = 6 + 2 * (cfg.level == "edges")
    found = runs.each(cfg.seeds, n_steps, "ioi_mib, seed", partial(study, cfg, model, tokenizer), keep)
    about = (
        f"{cfg.model}, circuits of {cfg.level}, ranked on {cfg.n} prompts and measured on as many others, seeds "
        f"{list(cfg.seeds)}, mean ± spread over seeds. CPR: area under the faithfulness, the higher the better; CMD: "
        "area between it and 1, the lower the better. The last columns: faithfulness of the largest sizes."
    )
    shown = [circuits.FRACTIONS.index(x) for x in (0.01, 0.05, 0.1, 0.2)]
    rows = [
        {"method": name}
        | {area: runs.cell(told[area], 3) for area in ("CPR", "CMD")}
        | {f"{circuits.FRACTIONS[i]:.0%}": runs.cell(told["largest sizes"][:, i]) for i in shown}
        for name, told in sorted(found.items(), key=lambda item: float(np.mean(item[1]["CMD"])))
    ]
    runs.finish("ioi_mib", cfg, found, draw(cfg, found), about, runs.table(rows))
    return found


if __name__ == "__main__":
    main(config.load(MIB, "configs/ioi_mib.toml"))
