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
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.at)
    metric = metrics.logit_diff(task.answers, task.distractors)
    return f, metric, metric(f(model, task.corrupted)), (model, task.clean, task.corrupted)


def effects(cfg: Compare, model, tokenizer, name: str, seed: int, begin) -> dict[str, np.ndarray]:
    """Every head's effect, by each method."""
    f, metric, base, args = posed(cfg, model, tokenizer, name, seed)
    begin(f"{name}, heads by patching")
    patched = patching.activation_patch(f, metric, SITE, OVER)(*args) - base.mean()
    estimated = patching.attribution_patch(f, metric, SITE, OVER)(*args)
    found = {"attribution": estimated}
    if runs.edges_add_up(model):
        begin(f"{name}, edges")
        eap, ig = (patching.edge_attribution(f, metric, steps=steps)(*args) for steps in (0, cfg.steps))
        found |= {"EAP": eap.sent("head"), f"EAP-IG {cfg.steps}": ig.sent("head")}
    return {"patching": np.ravel(patched)} | {method: np.ravel(values) for method, values in found.items()}


def nodes(cfg: Compare, model, tokenizer, name: str, seed: int, begin) -> dict[str, list[float]]:
    """Of queries and of keys, by method: the correlation with patching, and how many hold the ten largest effects."""
    f, metric, base, args = posed(cfg, model, tokenizer, name, seed)
    found = {}
    for site in ("blocks.attn.q", "blocks.attn.k"):
        begin(f"{name}, {site} by patching")
        true = patching.activation_patch(f, metric, site, NODES)(*args) - base.reshape(-1, 1, 1, 1)
        true = np.abs(true).mean(0).ravel()
        begin(f"{name}, {site} by estimates")
        for method, estimate in (("AtP", patching.attribution_patch), ("AtP*", patching.atp_star)):
            sizes = np.abs(estimate(f, metric, site, NODES)(*args)).mean(0).ravel()
            ranks = np.argsort(np.argsort(-sizes))
            held = 1 + max(ranks[np.argsort(-true)[:10]])
            found[f"{site[-1]}, {method}"] = [float(np.corrcoef(true, sizes)[0, 1]), int(held)]
    return found


def correlations(found: dict[str, list]) -> dict[str, dict[str, list[float]]]:
    """By task and method, Spearman's with patching of each seed."""
    methods = list(next(iter(found.values()))[0])[1:]
    ranked = {
        name: {m: [spearmanr(one["patching"], one[m])[0] for one in seeds] for m in methods}
        for name, seeds in found.items()
    }
    return jax.tree.map(float, ranked)


def main(cfg: Compare) -> dict:
    model, tokenizer = runs.open_model(cfg.model)

    def study(at: tuple[str, int], begin) -> tuple:
        name, seed = at
        return effects(cfg, model, tokenizer, name, seed, begin), nodes(cfg, model, tokenizer, name, seed, begin)

    def sorted_out(done: list) -> tuple[dict, dict]:
        """By task, the effects and the nodes of each seed that is done."""
        done = list(zip(places, done, strict=False))
        by_task = {name: [one for (task, _), one in done if task == name] for name in cfg.tasks}
        return tuple({name: [one[i] for one in ones] for name, ones in by_task.items() if ones} for i in range(2))

    def keep(done: list) -> None:
        found, of_nodes = sorted_out(done)
        numbers = {"spearman": correlations(found), "effects": found, "nodes": of_nodes}
        runs.write(cfg.out / "attribution_patching.json", cfg, numbers)

    places = [(name, seed) for name in cfg.tasks for seed in cfg.seeds]
    found, of_nodes = sorted_out(runs.each(places, 5 + runs.edges_add_up(model), "attribution", study, keep))
    ranks = correlations(found)
    methods = list(ranks[cfg.tasks[0]])
    print(f"{cfg.model}, {cfg.n} prompts, seeds {list(cfg.seeds)}: Spearman's correlation with patching, over heads\n")
    print(f"{'':14}" + "".join(f"{method:>18}" for method in methods))
    for name, row in ranks.items():
        print(f"{name:14}" + "".join(f"{np.mean(row[m]):11.2f} ±{runs.spread(row[m]):5.2f}" for m in methods))
    least = min((np.mean(row[m]), name, m) for name, row in ranks.items() for m in methods)
    below = [f"{m} on {name}" for name, row in ranks.items() for m in methods if np.mean(row[m]) < 0.7]
    print(f"\nThe weakest agreement is {least[0]:.2f}, of {least[2]} on {least[1]}; below 0.7: {below or 'none'}.")
    if runs.edges_add_up(model):
        print(
            "EAP's edges out of a head add up to its attribution, so that the two agree. What is lost is the order of"
        )
        print(
            "heads whose effect is next to nothing, and the size of early heads, which the path of EAP-IG mends in part."
        )
    print("\nQueries and keys: correlation of sizes with patching, and how many to look at for the ten largest\n")
    columns = list(of_nodes[cfg.tasks[0]][0])
    print(f"{'':14}" + "".join(f"{column:>22}" for column in columns))
    for name, ones in of_nodes.items():
        means, spreads = (fn([[one[c] for c in columns] for one in ones], axis=0) for fn in (np.mean, np.std))
        cells = (f"{m[0]:8.2f} ±{s[0]:4.2f}{m[1]:5.0f} ±{s[1]:2.0f}" for m, s in zip(means, spreads, strict=True))
        print(f"{name:14}" + "".join(cells))
    figure = go.Figure(layout={"title": "Effect of each head: estimates against patching", "height": 700})
    for method in methods:
        points = [(one["patching"], one[method]) for ones in found.values() for one in ones[:1]]
        x, y = (np.concatenate(column) for column in zip(*points, strict=True))
        figure.add_scatter(x=x, y=y, mode="markers", name=method)
    figure.update_layout(xaxis_title="patching (logit difference)", yaxis_title="estimate")
    figure.write_html(cfg.out / "attribution_patching.html")
    return ranks


if __name__ == "__main__":
    main(config.load(Compare, "configs/attribution_patching.toml"))
