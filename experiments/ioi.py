"""Which heads tell a model who is given something, and are they enough?

`when Mary and John went to the park , John gave a ring to` -> Mary. Wang et al. 2022, "Interpretability in the wild"
(https://arxiv.org/abs/2211.00593), find a circuit of heads for it in GPT-2: duplicate-token and induction heads notice,
at the second John, that the name was said before; S-inhibition heads carry this to the end; name movers look from there
at the name that was said once, and write it. The script asks the paper's questions in its order:

1. Which heads matter? A head's output is patched from the clean run into one where the other name is given, and is
   estimated by gradients (EAP-IG).
2. What do they do? Paths to the logits find the heads that write the name, paths into those the heads that tell them;
   attention says where each looks. These two are in `ioi_heads.py`.
3. Are they enough? Circuits of the largest nodes and edges, ever more of them, run alone, all else resample-ablated.
4. Is the smallest that is enough whole, and is all of it needed? Completeness and minimality. These two are in
   `ioi_circuits.py`.

    python experiments/ioi.py [--model gpt2] [--out DIR]

Two minutes on two cores. It prints the largest heads with all their scores, what it takes until a circuit is enough,
and which heads write the name and tell the writer. A model that norms what its heads write (Gemma) has no edges that
add up, and none of what takes them: circuits of nodes by patching are left.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ioi_circuits import EDGES_BETWEEN, faithful, is_whole_and_needed, largest_circuits
from ioi_heads import Begin, Problem, score_heads
import jax
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

from interp_jax import config, data, metrics, models, patching


@dataclass(frozen=True)
class IOI:
    model: str
    n: int  # prompts
    seeds: tuple[int, ...]
    steps: int  # of EAP-IG
    every: int  # nodes from one circuit that is measured to the next
    n_edges: int  # of the largest circuit of edges; 0: none is measured, since many layers take long to compile
    enough: float  # faithfulness of the circuits that are looked at
    out: Path


def pose(n: int, model, tokenizer, seed: int) -> Problem:
    """Prompts of one template and order of names, so that a position is the same word's in every prompt."""
    task = data.tasks.ioi(jax.random.key(seed), tokenizer, n=n, order="ABBA", template=0)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    difference = metrics.logit_diff(task.answers, task.distractors)
    clean = difference(f(model, task.clean)).mean()
    corrupted = difference(f(model, task.corrupted)).mean()
    return Problem(model, task, f, metrics.normalized(difference, clean, corrupted))


def attribute_edges(cfg: IOI, problem: Problem, begin: Begin) -> patching.Edges | None:
    """Every edge's effect as EAP-IG estimates it; none where what heads write does not add up."""
    if not runs.edges_add_up(problem.model):
        return None
    begin("EAP-IG")
    return patching.edge_attribution(problem.f, problem.metric, steps=cfg.steps)(*problem.args)


def study(cfg: IOI, model, tokenizer, seed: int, begin: Begin) -> dict[str, dict]:
    """All four questions on one seed's prompts: scores of heads, faithfulness `[size]` by kind of circuit, and more."""
    problem = pose(cfg.n, model, tokenizer, seed)
    edges = attribute_edges(cfg, problem, begin)
    heads = score_heads(problem, edges, begin)
    nested = largest_circuits(cfg.every, cfg.n_edges, problem, heads, edges, begin)
    share = {name: faithful(problem, name, circuit, begin) for name, circuit in nested.items()}

    first = {name: int(np.argmax(values >= cfg.enough)) for name, values in share.items()}
    told = {}
    for name, i in first.items():
        is_enough = share[name][i] >= cfg.enough
        told[f"{name} until {cfg.enough}"] = float(nested[name].size[i]) if is_enough else np.nan
    best = next(iter(nested))
    smallest = jax.tree.map(lambda mask: mask[first[best]], nested[best])
    told |= is_whole_and_needed(problem, smallest, seed, begin)
    if edges is not None:
        told["Spearman of patching and EAP-IG"] = runs.rank_correlation(heads["patching"], heads["EAP-IG"])
    return {"heads": heads, "faithfulness": share, "told": told}


def largest(scores: np.ndarray, n: int) -> list[tuple[int, int]]:
    """The layers and heads of the `n` largest sizes of scores `[layer head]`, the largest first."""
    order = np.argsort(-np.abs(scores), axis=None)[:n]
    return list(zip(*np.unravel_index(order, scores.shape), strict=True))


def table_of_heads(heads: dict[str, np.ndarray]) -> str:
    """The heads that bring back most, with all their scores `[seed layer head]`."""
    return runs.table(
        [
            {"head": f"{layer}.{head}"} | {name: runs.cell(scores[:, layer, head]) for name, scores in heads.items()}
            for layer, head in largest(heads["patching"].mean(0), 8)
        ]
    )


def story(heads: dict[str, np.ndarray]) -> str:
    """Which head writes the name, where it looks, and who tells it."""
    mean = {name: scores.mean(0) for name, scores in heads.items()}
    (writer,) = largest(mean["to logits"], 1)
    looks = max(("end>io", "end>s2"), key=lambda name: mean[name][writer])
    told_by = max(("to its q", "to its v"), key=lambda name: np.abs(mean[name]).max())
    (sender,) = largest(mean[told_by], 1)
    return (
        f"Head {writer[0]}.{writer[1]} writes the name: its path to the logits brings back "
        f"{mean['to logits'][writer]:.2f}. It looks most {looks} ({mean[looks][writer]:.2f}), and is told by its "
        f"{told_by[-1]}, most by head {sender[0]}.{sender[1]} ({mean[told_by][sender]:.2f})."
    )


def draw(cfg: IOI, found: dict) -> go.Figure:
    """Faithfulness by size, a panel for each kind of circuit."""
    share = found["faithfulness"]
    _, n_layers, n_heads = found["heads"]["patching"].shape
    between = {"nodes": cfg.every, "edges": EDGES_BETWEEN}
    most = {"nodes": n_layers * (n_heads + 1), "edges": cfg.n_edges}
    figure = make_subplots(1, len(share), subplot_titles=list(share), shared_yaxes=True)
    for column, (name, values) in enumerate(share.items(), start=1):
        unit = name.split()[0]
        sizes = np.minimum(np.arange(values.shape[1]) * between[unit], most[unit])  # the last step may be shorter
        runs.curve(figure, values, sizes, mode="lines+markers", showlegend=False, row=1, col=column)
        figure.update_xaxes(title=unit, col=column)
    return figure.update_layout(title=f"Faithfulness by size of the circuit, {cfg.model}")


def main(cfg: IOI) -> dict:
    """Runs every seed, and gives what they found, each number with the seed as its first axis."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    n_steps = 7  # that a seed begins: of heads 4, then MLPs, a kind of circuit, completeness and minimality
    if runs.edges_add_up(model):
        n_steps += 2 + bool(cfg.n_edges)  # EAP-IG, and the kinds of circuit that it gives
    keep = partial(runs.write, "ioi", cfg)
    found = runs.each(cfg.seeds, n_steps, "ioi, seed", partial(study, cfg, model, tokenizer), keep)
    about = (
        f"{cfg.model}, {cfg.n} prompts, seeds {list(cfg.seeds)}, mean ± spread over seeds. Scores are shares of the "
        "logit difference of the two names that come back, but `direct`, in logits; `its`: of the head with the "
        "strongest path to the logits; x>y: how much a head looks from x at y."
    )
    told = runs.table([{"circuits": name, "": runs.cell(values, 3)} for name, values in found["told"].items()])
    text = about, table_of_heads(found["heads"]), told, story(found["heads"])
    runs.finish("ioi", cfg, found, draw(cfg, found), *text)
    return found


if __name__ == "__main__":
    main(config.load(IOI, "configs/ioi.toml"))
