"""Do the scores of a transformer debugger rank nodes as ablating them does?

OpenAI's Transformer Debugger (2024, https://github.com/openai/transformer-debugger) ranks heads and neurons by what
they write, by their direct effect on the difference of two logits, and by activation times gradient. Here, on prompts
of indirect objects, nodes drawn by chance are each ablated (to zero, and to their mean over prompts), and the change of
the difference is compared in rank with each score; magnitudes by size, without sign. Beside it: scores given to other
nodes of the same kind, and for whole heads activation patching from the clean prompt into its twin.

    python experiments/debugger.py [--model smollm2.gguf] [--out DIR]

Two minutes on two cores; four for SmolLM2-135M.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, metrics, models, patching
from interp_jax.data import tasks
from interp_jax.explain import Node, Why, ablations, node_means, why

SCORES = ("magnitude", "direct", "gradient")
SHOWN = 6  # heads that are told


@dataclass(frozen=True)
class Debugger:
    model: str
    n_prompts: int  # whose nodes are ablated
    n_reference: int  # over which means are taken
    n_nodes: int  # of each group, at most
    chunk: int
    seeds: tuple[int, ...]
    out: Path


def groups(found: Why, n: int, rng: np.random.Generator) -> dict[str, list[Node]]:
    """Nodes drawn by chance: heads and neurons, at the last token and before it; the embeddings."""
    nodes = defaultdict[str, list[Node]](list)
    last = int(found.position)
    for part in found.parts:
        n_layers, n_positions, n_units = part.values["direct"].shape
        for there in ((last,), range(n_positions)) if part.counted else (range(n_positions),):
            places = [p for p in there if p != last or len(there) == 1 or not part.counted]
            index = np.indices((n_layers, len(places), n_units)).reshape(3, -1).T
            some = index[np.sort(rng.permutation(len(index))[:n])]
            name = part.kind if not part.counted else f"{part.kind}, {'last token' if len(there) == 1 else 'before'}"
            nodes[name] += [part.node(int(layer), places[int(p)], int(unit)) for layer, p, unit in some]
    return {name: some for name, some in nodes.items() if "bias" not in name}


def agreement(scores: dict[str, np.ndarray], change: np.ndarray) -> dict[str, float]:
    """Rank correlation of each score with what an ablation takes away; of sizes for magnitudes."""
    same = {name: (abs(change) if name == "magnitude" else change) for name in scores}
    return {name: runs.rank_correlation(values, same[name]) for name, values in scores.items() if values.any()}


def study(cfg: Debugger, model: Any, tokenizer: Any, seed: int, begin: Any) -> dict:
    """Rank correlations by group of nodes, ablation and score, means over prompts; and of heads with patching."""
    task = tasks.ioi(jax.random.key(seed), tokenizer, n=max(cfg.n_prompts, cfg.n_reference), order="ABBA", template=0)
    weights, rng = models.weights(model), np.random.default_rng(seed)
    begin("means")
    means = node_means(models.forward)(model, task.clean[: cfg.n_reference], task.mask[: cfg.n_reference])
    found: dict[str, Any] = {"agreement": {}, "difference": [], "heads": []}
    rows = defaultdict[tuple[str, str, str], list[float]](list)
    for i in range(cfg.n_prompts):
        row, mask, ends = task.clean[i], task.mask[i], (int(task.answers[i]), int(task.distractors[i]))
        begin(f"prompt {i}")
        here = why(models.forward, *ends, tokenizer=tokenizer)(model, weights, row, mask)
        by = {name: sum(part.values[name] for part in here.parts if part.kind == "head") for name in SCORES}
        found["heads"].append({name: np.asarray(values).sum(1) for name, values in by.items()})
        found["difference"].append(float(here.value))
        for kind, nodes in groups(here, cfg.n_nodes, rng).items():
            scores = {name: np.array([here[node].scores[name] for node in nodes]) for name in SCORES}
            for how, reference in (("zero", None), ("mean", means)):
                run = ablations(models.forward, nodes, *ends, means=reference, chunk=cfg.chunk)
                change = float(here.value) - np.asarray(run(model, weights, row, mask).value)
                for name, value in agreement(scores, change).items():
                    rows[kind, how, name].append(value)
                mixed = {"gradient": rng.permutation(scores["gradient"])}
                rows[kind, how, "shuffled"].append(agreement(mixed, change)["gradient"])
    begin("patching")
    some = slice(0, cfg.n_prompts)
    f = partial(models.forward, attention_mask=task.mask[some], logits_at=task.last[some])
    metric = metrics.logit_diff(task.answers[some], task.distractors[some])
    patch = patching.activation_patch(f, metric, "blocks.attn.z", ("layer", "head"))
    ends = [float(metric(f(model, tokens[some])).mean()) for tokens in (task.clean, task.corrupted)]
    restored = (np.asarray(patch(model, task.clean[some], task.corrupted[some])) - ends[1]) / (ends[0] - ends[1])
    heads = {name: np.mean([one[name] for one in found["heads"]], 0) for name in SCORES}
    return {
        "agreement": {key: np.array(np.mean(values)) for key, values in rows.items()},
        "patching": {name: np.array(value) for name, value in agreement(heads, restored).items()},
        "restored": restored,
        "heads": heads,
        "difference": np.array(np.mean(found["difference"])),
    }


def told(values: np.ndarray) -> str:
    """The heads with the largest values, the largest first."""
    order = np.argsort(-abs(values), axis=None)[:SHOWN]
    places = zip(*np.unravel_index(order, values.shape), strict=True)
    return ", ".join(f"{layer}.{head} {values[layer, head]:+.2f}" for layer, head in places)


def main(cfg: Debugger) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")

    def flat(seed: int, begin: Any) -> dict:
        one = study(cfg, model, tokenizer, seed, begin)
        return one | {"agreement": {" | ".join(key): value for key, value in one["agreement"].items()}}

    keep = lambda found: runs.write("debugger", cfg, found)  # noqa: E731
    found = runs.each(cfg.seeds, cfg.n_prompts + 2, "ablations", flat, keep)
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for key, values in found["agreement"].items():
        kind, how, name = key.split(" | ")
        rows.setdefault((kind, how), {"nodes": kind, "ablated to": how})[name] = runs.cell(values)
    patched = {"nodes": "whole heads", "ablated to": "(patching)"}
    patched |= {name: runs.cell(values) for name, values in found["patching"].items()}
    about = (
        f"{cfg.model}: rank correlation of each score with what the difference loses, {cfg.n_prompts} prompts, mean ± "
        f"spread over seeds {list(cfg.seeds)}; the difference is {runs.cell(found['difference'])}"
    )
    story = (
        f"Heads over all tokens, first seed: direct effect {told(found['heads']['direct'][0])}; activation x gradient "
        f"{told(found['heads']['gradient'][0])}; restored by patching {told(found['restored'][0])}."
    )
    figure = go.Figure(layout={"title": f"Scores beside ablations, {Path(cfg.model).name}"})
    for name in (*SCORES, "shuffled"):
        zero = {k.split(" | ")[0]: v for k, v in found["agreement"].items() if k.endswith(f" | zero | {name}")}
        if zero:
            runs.curve(figure, np.stack(list(zero.values()), 1), list(zero), name=name, mode="markers")
    figure.update_layout(yaxis_title="rank correlation with zero ablation")
    runs.finish("debugger", cfg, found, figure, about, runs.table([*rows.values(), patched]), story)
    return found


if __name__ == "__main__":
    main(config.load(Debugger, "configs/debugger.toml"))
