"""The circuit of indirect objects, found by every method: which heads, what they do, and whether they are enough.

`python experiments/ioi.py [--model gpt2] [--out DIR]`. Wang et al. 2022, https://arxiv.org/abs/2211.00593: name movers
look from the end at the indirect object and write it (direct logit attribution, paths to the logits); S-inhibition
heads look from the end at the second subject and tell the movers by their queries; duplicate-token and induction heads
look from there at the first subject or the word after it. Circuits of the largest nodes and edges by EAP-IG, and of the
largest nodes by patching, are measured with resample ablation. Spread over seeds, each of other prompts. A model that
norms what its heads write (Gemma) has no edges that add up, and none of what takes them: nodes by patching are left.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ioi_heads import heads
import jax
import jax.numpy as jnp
import numpy as np
from plotly.subplots import make_subplots
import runs
from scipy.stats import spearmanr

from interp_jax import circuits, config, data, metrics, models, patching


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


def study(cfg: IOI, model, tokenizer, seed: int, begin) -> dict[str, dict]:
    """The scores of heads; by kind of circuit, faithfulness `[size]`; what is told of the smallest that is enough."""
    task = data.tasks.ioi(jax.random.key(seed), tokenizer, n=cfg.n, order="ABBA", template=0)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    difference, args = metrics.logit_diff(task.answers, task.distractors), (model, task.clean, task.corrupted)
    metric = metrics.normalized(difference, *(difference(f(model, tokens)).mean() for tokens in args[1:]))
    edges = None
    if runs.edges_add_up(model):
        begin("EAP-IG")
        edges = patching.edge_attribution(f, metric, steps=cfg.steps)(*args)
    found = heads(model, task, f, metric, edges, begin)
    begin("MLPs by patching")
    mlps = patching.activation_patch(f, metric, "blocks.mlp_out", "layer")(*args)
    n = found["patching"].size + mlps.size
    sizes, work = np.append(np.arange(0, n, cfg.every), n), circuits.faithfulness(f, metric)
    kinds = {"nodes by patching": (found["patching"], mlps)}
    if edges is not None:
        kinds = {"nodes by EAP-IG": (found["EAP-IG"], edges.sent("mlp"))} | kinds
    nested = {name: circuits.Circuit.top(*map(jnp.abs, scores), jnp.asarray(sizes)) for name, scores in kinds.items()}
    if edges is not None and cfg.n_edges:
        sizes = jnp.arange(0, cfg.n_edges + 1, 10)
        nested["edges by EAP-IG"] = circuits.EdgeCircuit.top(jax.tree.map(jnp.abs, edges), sizes)
    share = {}
    for name, circuit in nested.items():
        begin(name)
        share[name] = np.asarray(work(*args, circuit).share)
    first = {name: int(np.argmax(values >= cfg.enough)) for name, values in share.items()}
    told = {
        f"{name} until {cfg.enough}": float(nested[name].size[i]) if share[name][i] >= cfg.enough else np.nan
        for name, i in first.items()
    }
    best = next(iter(kinds))
    circuit = jax.tree.map(lambda mask: mask[first[best]], nested[best])
    parts = circuit.random(jax.random.key(seed), 20)
    begin("completeness and minimality")
    told["completeness, gap over 20 parts"] = float(circuits.completeness(f, metric)(*args, circuit, parts).gap.mean())
    least = circuits.minimality(f, metric)(*args, circuit)
    members = least.heads[circuit.heads], least.mlps[circuit.mlps]
    told["minimality, least share of a member"] = float(jnp.concatenate(members).min())
    if edges is not None:
        both = (np.ravel(found[name]) for name in ("patching", "EAP-IG"))
        told["Spearman of patching and EAP-IG"] = float(spearmanr(*both)[0])
    return {"heads": found, "faithfulness": share, "told": told}


def main(cfg: IOI) -> dict:
    model, tokenizer = models.load(cfg.model, dtype="float32")
    n_steps = 7 + (2 + bool(cfg.n_edges)) * runs.edges_add_up(model)

    keep = partial(runs.write, cfg.out / "ioi.json", cfg)
    numbers = runs.each(cfg.seeds, n_steps, "ioi, seed", partial(study, cfg, model, tokenizer), keep)
    found, share, told = (numbers[name] for name in ("heads", "faithfulness", "told"))
    mean, spread = ({name: fn(x, axis=0) for name, x in found.items()} for fn in (np.mean, np.std))
    print(
        f"{cfg.model}, {cfg.n} prompts, seeds {list(cfg.seeds)}: shares of the logit difference of the two names, mean"
    )
    print(
        "± deviation over seeds; `direct` in logits; `its`: of the head with the strongest path to the logits; x>y: how"
    )
    print("much it looks from x at y\n\nhead " + "".join(f"{name:>12} " for name in found))

    def ranked(name: str) -> list[tuple]:
        """Places of the heads, the largest first."""
        order = np.argsort(-np.abs(mean[name]), axis=None)
        return list(zip(*np.unravel_index(order, mean[name].shape), strict=True))

    for at in ranked("patching")[:8]:
        print(f"{at[0]}.{at[1]:<3}" + "".join(f"{mean[name][at]:8.2f}±{spread[name][at]:4.2f}" for name in found))
    print("\n" + "\n".join(f"{name:42}{values.mean():8.3f} ±{values.std():.3f}" for name, values in told.items()))
    mover, kind = ranked("to logits")[0], max("qv", key=lambda kind: np.abs(mean[f"to its {kind}"]).max())
    look, told_by = max(("end>io", "end>s2"), key=lambda name: mean[name][mover]), f"to its {kind}"
    writer, sender = ("{}.{}".format(*at) for at in (mover, ranked(told_by)[0]))
    print(
        f"\nHead {writer} writes the name: its path to the logits brings back {mean['to logits'][mover]:.2f}. It looks"
    )
    print(f"most {look} ({mean[look][mover]:.2f}), and is told by its {kind}, most by head {sender}", end=" ")
    print(f"({mean[told_by][ranked(told_by)[0]]:.2f}).")
    figure = make_subplots(1, len(share), subplot_titles=list(share))
    for column, values in enumerate(share.values(), start=1):
        step = 10 if list(share)[column - 1].startswith("edges") else cfg.every
        size = {"x": np.arange(values.shape[1]) * step, "error_y": {"array": values.std(0)}}
        figure.add_scatter(y=values.mean(0), showlegend=False, **size, row=1, col=column)
        figure.update_xaxes(title=list(share)[column - 1].split()[0], col=column)
    figure.update_layout(title=f"Faithfulness by size of the circuit, {cfg.model}")
    figure.write_html(cfg.out / "ioi.html")
    return numbers


if __name__ == "__main__":
    main(config.load(IOI, "configs/ioi.toml"))
