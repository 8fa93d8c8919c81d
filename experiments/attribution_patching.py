"""How well gradients estimate patching: ranks of heads by attribution patching, EAP and EAP-IG beside true patching.

`python experiments/attribution_patching.py [--model gpt2 --tasks ioi] [--out DIR]`. A head's true effect: the logit
difference of the corrupted run with that head's output from the clean run, less without. The estimates: attribution
patching of the same site (Nanda 2023), and the sum over a head's edges of EAP (Syed et al. 2023) and EAP-IG (Hanna et
al. 2024). Spearman's correlation over heads, mean and spread over seeds, each of other prompts. Then every query and
key of every position, where attention saturates: attribution patching and AtP* (Kramár et al. 2024), by Pearson's
correlation of the sizes, and by how far down its list one must look to have the ten largest effects. A model that norms
what its heads write has no edges that add up: EAP is left out.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import plotly.graph_objects as go
import runs
from scipy.stats import spearmanr

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
    patched = patching.activation_patch(f, metric, SITE, OVER)(*args) - base.mean()
    estimated = patching.attribution_patch(f, metric, SITE, OVER)(*args)
    found = {"attribution": estimated}
    if runs.edges_add_up(model):
        begin("edges")
        eap, ig = (patching.edge_attribution(f, metric, steps=steps)(*args) for steps in (0, cfg.steps))
        found |= {"EAP": eap.sent("head"), f"EAP-IG {cfg.steps}": ig.sent("head")}
    return {"patching": np.ravel(patched)} | {method: np.ravel(values) for method, values in found.items()}


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
            ranks = np.argsort(np.argsort(-sizes))
            held = 1 + max(ranks[np.argsort(-true)[:10]])
            found[f"{site[-1]}, {method}"] = [float(np.corrcoef(true, sizes)[0, 1]), int(held)]
    return found


def main(cfg: Compare) -> dict:
    model, tokenizer = models.load(cfg.model, dtype="float32")
    numbers: dict[str, dict] = {}

    def study(name: str, seed: int, begin) -> dict[str, dict]:
        found, of_nodes = (part(cfg, model, tokenizer, name, seed, begin) for part in (effects, nodes))
        ranks = {method: spearmanr(found["patching"], found[method])[0] for method in list(found)[1:]}
        return {"spearman": ranks, "effects": found, "nodes": of_nodes}

    for name in cfg.tasks:

        def keep(found: dict, name=name) -> None:
            numbers[name] = found
            runs.write(cfg.out / "attribution_patching.json", cfg, {"tasks": numbers})

        runs.each(cfg.seeds, 5 + runs.edges_add_up(model), f"{name}, seed", partial(study, name), keep)
    ranks, of_nodes = ({name: found[kind] for name, found in numbers.items()} for kind in ("spearman", "nodes"))
    methods = list(ranks[cfg.tasks[0]])
    print(f"{cfg.model}, {cfg.n} prompts, seeds {list(cfg.seeds)}: Spearman's correlation with patching, over heads\n")
    print(f"{'':14}" + "".join(f"{method:>18}" for method in methods))
    for name, row in ranks.items():
        print(f"{name:14}" + "".join(f"{np.mean(row[m]):11.2f} ±{runs.spread(row[m]):5.2f}" for m in methods))
    least = min((np.mean(row[m]), name, m) for name, row in ranks.items() for m in methods)
    below = [f"{m} on {name}" for name, row in ranks.items() for m in methods if np.mean(row[m]) < 0.7]
    print(f"\nThe weakest agreement is {least[0]:.2f}, of {least[2]} on {least[1]}; below 0.7: {below or 'none'}.")
    if runs.edges_add_up(model):
        print("EAP's edges out of a head add up to its attribution, so that the two agree. What is lost is the order")
        print("of heads whose effect is next to nothing, and the size of early heads, which EAP-IG mends in part.")
    print("\nQueries and keys: correlation of sizes with patching, and how many to look at for the ten largest\n")
    print(f"{'':14}" + "".join(f"{column:>22}" for column in of_nodes[cfg.tasks[0]]))
    for name, columns in of_nodes.items():
        means, spreads = (fn(list(columns.values()), axis=1) for fn in (np.mean, np.std))
        cells = (f"{m[0]:8.2f} ±{s[0]:4.2f}{m[1]:5.0f} ±{s[1]:2.0f}" for m, s in zip(means, spreads, strict=True))
        print(f"{name:14}" + "".join(cells))
    figure = go.Figure(layout={"title": "Effect of each head: estimates against patching", "height": 700})
    for method in methods:
        points = [(found["effects"]["patching"][0], found["effects"][method][0]) for found in numbers.values()]
        x, y = (np.concatenate(column) for column in zip(*points, strict=True))
        figure.add_scatter(x=x, y=y, mode="markers", name=method)
    figure.update_layout(xaxis_title="patching (logit difference)", yaxis_title="estimate")
    figure.write_html(cfg.out / "attribution_patching.html")
    return ranks


if __name__ == "__main__":
    main(config.load(Compare, "configs/attribution_patching.toml"))
