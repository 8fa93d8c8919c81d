"""How well do gradients estimate patching: do the cheap methods rank the parts of a model as the true one does?

A head's true effect: the logit difference of the corrupted run with that head's output from the clean run, less
without. The estimates: attribution patching of the same site (Nanda 2023), and the sum over a head's edges of EAP (Syed
et al. 2023, https://arxiv.org/abs/2310.10348) and EAP-IG (Hanna et al. 2024, https://arxiv.org/abs/2403.17806). They
are compared by Spearman's correlation over heads. Then every query and key of every position, where attention
saturates: attribution patching and AtP* (Kramár et al. 2024, https://arxiv.org/abs/2403.00745), by Pearson's
correlation of the sizes, and by how far down its list one must look to have the ten largest effects.

    python experiments/attribution_patching.py [--model gpt2 --tasks ioi] [--out DIR]

A few minutes on two cores. It prints a table of heads and one of queries and keys, mean and spread over seeds, each of
other prompts. A model that norms what its heads write has no edges that add up: EAP is left out.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, data, metrics, models, patching

SITE, OVER = "blocks.attn.z", ("layer", "head")
NODES = ("batch", "layer", "position", "head")


@dataclass(frozen=True)
class Compare:
    model: str
    tasks: tuple[str, ...]
    n: int  # prompts of a task
    seeds: tuple[int, ...]
    steps: int  # of EAP-IG
    out: Path


def posed(cfg: Compare, model, tokenizer, name: str, seed: int) -> tuple:
    """The task as a function, its metric, that of each corrupted prompt, and model, clean and corrupted prompts."""
    task = getattr(data.tasks, name)(jax.random.key(seed), tokenizer, n=cfg.n)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    metric = metrics.logit_diff(task.answers, task.distractors)
    return f, metric, metric(f(model, task.corrupted)), (model, task.clean, task.corrupted)


def effects(cfg: Compare, model, tokenizer, name: str, seed: int, begin) -> dict[str, np.ndarray]:
    """Every head's effect, by each method."""
    f, metric, base, args = posed(cfg, model, tokenizer, name, seed)
    begin("heads by patching")
    found = {
        "patching": patching.activation_patch(f, metric, SITE, OVER)(*args) - base.mean(),
        "attribution": patching.attribution_patch(f, metric, SITE, OVER)(*args),
    }
    if runs.edges_add_up(model):
        begin("edges")
        found["EAP"] = patching.edge_attribution(f, metric)(*args).sent("head")
        found[f"EAP-IG {cfg.steps}"] = patching.edge_attribution(f, metric, steps=cfg.steps)(*args).sent("head")
    return {method: np.ravel(values) for method, values in found.items()}


def nodes(cfg: Compare, model, tokenizer, name: str, seed: int, begin) -> dict[str, list[float]]:
    """Of queries and of keys, by method: the correlation with patching, and how many hold the ten largest effects."""
    f, metric, base, args = posed(cfg, model, tokenizer, name, seed)
    found = {}
    for site in ("blocks.attn.q", "blocks.attn.k"):
        begin(f"{site} by patching")
        true = patching.activation_patch(f, metric, site, NODES)(*args) - base.reshape(-1, 1, 1, 1)
        true = np.abs(true).mean(0).ravel()
        begin(f"{site} by estimates")
        for method, estimate in (("AtP", patching.attribution_patch), ("AtP*", patching.atp_star)):
            sizes = np.abs(estimate(f, metric, site, NODES)(*args)).mean(0).ravel()
            ranks = np.argsort(np.argsort(-sizes))  # 0 is the largest
            held = 1 + max(ranks[np.argsort(-true)[:10]])
            found[f"{site[-1]}, {method}"] = [float(np.corrcoef(true, sizes)[0, 1]), int(held)]
    return found


def study(cfg: Compare, model, tokenizer, name: str, seed: int, begin) -> dict[str, dict]:
    """Both comparisons on one seed's prompts of a task."""
    of_heads = effects(cfg, model, tokenizer, name, seed, begin)
    of_nodes = nodes(cfg, model, tokenizer, name, seed, begin)
    estimates = {method: values for method, values in of_heads.items() if method != "patching"}
    ranks = {method: runs.rank_correlation(of_heads["patching"], values) for method, values in estimates.items()}
    return {"spearman": ranks, "effects": of_heads, "nodes": of_nodes}


def table_of_heads(numbers: dict[str, dict]) -> str:
    """A row for each task, a column for each method."""
    rows = []
    for name, found in numbers.items():
        cells = {method: runs.cell(ranks) for method, ranks in found["spearman"].items()}
        rows.append({"heads": name} | cells)
    return runs.table(rows)


def table_of_nodes(numbers: dict[str, dict]) -> str:
    """A row for each task; a method's correlation, and after the stroke how many to look at for the ten largest."""
    rows = []
    for name, found in numbers.items():
        columns = {column: np.asarray(values).T for column, values in found["nodes"].items()}
        cells = {column: f"{runs.cell(fit)} / {runs.cell(held, 0)}" for column, (fit, held) in columns.items()}
        rows.append({"queries and keys": name} | cells)
    return runs.table(rows)


def story(numbers: dict[str, dict]) -> str:
    """Where an estimate is not to be relied on."""
    means = {
        f"{method} on {name}": float(np.mean(ranks))
        for name, found in numbers.items()
        for method, ranks in found["spearman"].items()
    }
    weakest = min(means, key=means.__getitem__)
    below = [name for name, mean in means.items() if mean < 0.7]
    told = f"The weakest agreement is {means[weakest]:.2f}, of {weakest}; below 0.7: {', '.join(below) or 'none'}."
    if any(name.startswith("EAP") for name in means):
        told += (
            " EAP's edges out of a head add up to its attribution, so that the two agree. What is lost is the order of "
            "heads whose effect is next to nothing, and the size of early heads, which EAP-IG mends in part."
        )
    return told


def draw(cfg: Compare, numbers: dict[str, dict]) -> go.Figure:
    """Every head of every task, a colour for each method, of the first seed."""
    figure = go.Figure(layout={"title": "Effect of each head: estimates against patching", "height": 700})
    first = [{method: values[0] for method, values in found["effects"].items()} for found in numbers.values()]
    methods = numbers[cfg.tasks[0]]["spearman"]
    for method, symbol in zip(methods, ("circle-open", "cross-open", "diamond-open"), strict=False):
        x, y = (np.concatenate([effects[name] for effects in first]) for name in ("patching", method))
        marker = {"symbol": symbol, "size": 9}  # open, since attribution and EAP agree, and lie on one another
        figure.add_scatter(x=x, y=y, mode="markers", name=method, marker=marker)
    return figure.update_layout(xaxis_title="patching (logit difference)", yaxis_title="estimate")


def main(cfg: Compare) -> dict:
    """The rank correlations, by task and method, with the seed as the first axis."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    n_steps = 5 + runs.edges_add_up(model)  # that a seed begins: heads, their edges, and two each of queries and keys
    numbers: dict[str, dict] = {}
    for name in cfg.tasks:

        def keep(found: dict, name=name) -> None:
            numbers[name] = found
            runs.write("attribution_patching", cfg, {"tasks": numbers})

        runs.each(cfg.seeds, n_steps, f"{name}, seed", partial(study, cfg, model, tokenizer, name), keep)
    about = (
        f"{cfg.model}, {cfg.n} prompts, seeds {list(cfg.seeds)}, mean ± spread over seeds. Spearman's correlation with "
        "patching, over heads; of queries and keys, the correlation of sizes with patching / how many to look at for "
        "the ten largest."
    )
    text = about, table_of_heads(numbers), table_of_nodes(numbers), story(numbers)
    runs.finish("attribution_patching", cfg, {"tasks": numbers}, draw(cfg, numbers), *text)
    return {name: found["spearman"] for name, found in numbers.items()}


if __name__ == "__main__":
    main(config.load(Compare, "configs/attribution_patching.toml"))
