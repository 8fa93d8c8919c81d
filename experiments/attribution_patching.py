"""How well gradients estimate patching: ranks of heads by attribution patching, EAP and EAP-IG beside true patching.

`python experiments/attribution_patching.py [--model gpt2 --tasks ioi] [--out DIR]`. A head's true effect: the logit
difference of the corrupted run with that head's output from the clean run, less without. The estimates: attribution
patching of the same site (Nanda 2023), and the sum over a head's edges of EAP (Syed et al. 2023) and EAP-IG (Hanna et
al. 2024). Spearman's correlation over heads, mean and spread over seeds, each of other prompts. Then every query and
key of every position, where attention saturates: attribution patching and AtP* (Kramár et al. 2024), by Pearson's
correlation of the sizes, and by how far down its list one must look to have the ten largest effects.
"""

from dataclasses import asdict, dataclass
from functools import partial
import json
from pathlib import Path

import jax
import numpy as np
import plotly.graph_objects as go
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


def effects(cfg: Compare, model, tokenizer, name: str, seed: int) -> dict[str, np.ndarray]:
    """Every head's effect, by each method."""
    f, metric, base, args = posed(cfg, model, tokenizer, name, seed)
    patched = patching.activation_patch(f, metric, SITE, OVER)(*args) - base.mean()
    estimated = patching.attribution_patch(f, metric, SITE, OVER)(*args)
    eap, ig = (patching.edge_attribution(f, metric, steps=steps)(*args) for steps in (0, cfg.steps))
    found = {"attribution": estimated, "EAP": eap.sent("head"), f"EAP-IG {cfg.steps}": ig.sent("head")}
    return {"patching": np.ravel(patched)} | {method: np.ravel(values) for method, values in found.items()}


def nodes(cfg: Compare, model, tokenizer, name: str, seed: int) -> dict[str, list[float]]:
    """Of queries and of keys, by method: the correlation with patching, and how many hold the ten largest effects."""
    f, metric, base, args = posed(cfg, model, tokenizer, name, seed)
    found = {}
    for site in ("blocks.attn.q", "blocks.attn.k"):
        true = patching.activation_patch(f, metric, site, NODES)(*args) - base.reshape(-1, 1, 1, 1)
        true = np.abs(true).mean(0).ravel()
        for method, estimate in (("AtP", patching.attribution_patch), ("AtP*", patching.atp_star)):
            sizes = np.abs(estimate(f, metric, site, NODES)(*args)).mean(0).ravel()
            ranks = np.argsort(np.argsort(-sizes))
            held = 1 + max(ranks[np.argsort(-true)[:10]])
            found[f"{site[-1]}, {method}"] = [float(np.corrcoef(true, sizes)[0, 1]), int(held)]
    return found


def main(cfg: Compare) -> dict:
    model, tokenizer = models.load(cfg.model, dtype="float32")
    found = {name: [effects(cfg, model, tokenizer, name, seed) for seed in cfg.seeds] for name in cfg.tasks}
    methods = list(found[cfg.tasks[0]][0])[1:]
    ranks = {
        name: {m: [float(spearmanr(one["patching"], one[m])[0]) for one in runs] for m in methods}
        for name, runs in found.items()
    }
    print(f"{cfg.model}, {cfg.n} prompts, seeds {list(cfg.seeds)}: Spearman's correlation with patching, over heads\n")
    print(f"{'':14}" + "".join(f"{method:>18}" for method in methods))
    for name, row in ranks.items():
        print(f"{name:14}" + "".join(f"{np.mean(row[m]):11.2f} ±{np.std(row[m], ddof=1):5.2f}" for m in methods))
    least = min((np.mean(row[m]), name, m) for name, row in ranks.items() for m in methods)
    below = [f"{m} on {name}" for name, row in ranks.items() for m in methods if np.mean(row[m]) < 0.7]
    print(f"\nThe weakest agreement is {least[0]:.2f}, of {least[2]} on {least[1]}; below 0.7: {below or 'none'}.")
    print(
        "EAP's edges out of a head add up to its attribution, so that the two agree. What is lost is the order of heads"
    )
    print("whose effect is next to nothing, and the size of early heads, which the path of EAP-IG mends in part.")
    of_nodes = {name: [nodes(cfg, model, tokenizer, name, seed) for seed in cfg.seeds] for name in cfg.tasks}
    print("\nQueries and keys: correlation of sizes with patching, and how many to look at for the ten largest\n")
    columns = list(of_nodes[cfg.tasks[0]][0])
    print(f"{'':14}" + "".join(f"{column:>22}" for column in columns))
    for name, runs in of_nodes.items():
        means, spreads = (fn([[run[c] for c in columns] for run in runs], axis=0) for fn in (np.mean, np.std))
        cells = (f"{m[0]:8.2f} ±{s[0]:4.2f}{m[1]:5.0f} ±{s[1]:2.0f}" for m, s in zip(means, spreads, strict=True))
        print(f"{name:14}" + "".join(cells))
    figure = go.Figure(layout={"title": "Effect of each head: estimates against patching", "height": 700})
    for method in methods:
        points = [(one["patching"], one[method]) for runs in found.values() for one in runs[:1]]
        x, y = (np.concatenate(column) for column in zip(*points, strict=True))
        figure.add_scatter(x=x, y=y, mode="markers", name=method)
    figure.update_layout(xaxis_title="patching (logit difference)", yaxis_title="estimate")
    cfg.out.mkdir(parents=True, exist_ok=True)
    figure.write_html(cfg.out / "attribution_patching.html")
    effects_of = {name: [{m: v.tolist() for m, v in one.items()} for one in runs] for name, runs in found.items()}
    numbers = {
        "config": asdict(cfg) | {"out": str(cfg.out)},
        "spearman": ranks,
        "effects": effects_of,
        "nodes": of_nodes,
    }
    (cfg.out / "attribution_patching.json").write_text(json.dumps(numbers, indent=1) + "\n")
    return ranks


if __name__ == "__main__":
    main(config.load(Compare, "configs/attribution_patching.toml"))
