"""ROME's restoration curves: which states bring a fact back when its subject is drowned in noise.

`python experiments/causal_tracing.py [--model gpt2] [--out DIR]`. The subject's embeddings get noise of three
deviations of all embeddings; then one state, or a window of attention or MLP outputs, is put back as it was. Meng et
al. 2022, https://arxiv.org/abs/2202.05262, figures 1 and 2. Shown: the share of the answer's probability that noise
takes and a state brings back, by layer, at the subject and at the last word.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from plotly.subplots import make_subplots
import runs

from interp_jax import config, data, metrics, models, patching

SITES = {"state": ("blocks.resid_post", 1), "attention": ("blocks.attn_out", None), "MLP": ("blocks.mlp_out", None)}
PLACES = ("subject", "last")


@dataclass(frozen=True)
class Trace:
    model: str
    relation: str
    phrasing: int
    n: int  # prompts
    n_samples: int  # draws of noise
    noise: float  # in deviations of the embeddings
    window: int  # layers of attention or MLP outputs that are restored together
    seeds: tuple[int, ...]
    out: Path


def curves(cfg: Trace, model, tokenizer, seed: int, begin) -> dict[str, np.ndarray]:
    """Share of the total effect that each state brings back, `[place layer]`, by kind of state; the two ends."""
    # One relation and phrasing, so that a position is the same word's in every prompt.
    task = data.tasks.facts(jax.random.key(seed), tokenizer, n=cfg.n, relation=cfg.relation, phrasing=cfg.phrasing)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    at, end = int(task.positions["subject"][0]), int(task.positions["end"][0])
    subject = jnp.zeros(task.clean.shape, bool).at[:, at].set(True)
    scale = cfg.noise * jnp.std(models.weights(model)["W_E"].astype(jnp.float32))
    found = {}
    for name, (site, window) in SITES.items():
        begin(name)
        trace = patching.causal_trace(
            f, metrics.prob(task.answers), site, n_samples=cfg.n_samples, window=window or cfg.window
        )
        seen = trace(jax.random.key(seed + 1000), subject, scale, model, task.clean)
        shares = (seen.restored - seen.corrupted) / (seen.clean - seen.corrupted)  # [layer position]
        found[name] = np.stack([shares[:, at], shares[:, end]])
        found["ends"] = np.array([seen.clean, seen.corrupted])
    return found


def main(cfg: Trace) -> dict:
    model, tokenizer = models.load(cfg.model, dtype="float32")
    keep = partial(runs.write, cfg.out / "causal_tracing.json", cfg)  # [seed place layer]
    stacked = runs.each(cfg.seeds, len(SITES), "tracing, seed", partial(curves, cfg, model, tokenizer), keep)
    clean, corrupted = stacked.pop("ends").mean(0)
    n_layers = next(iter(stacked.values())).shape[-1]
    print(
        f"{cfg.model}: the answer's probability {clean:.2f}, with noise {corrupted:.2f}; {cfg.n} prompts, seeds ",
        end="",
    )
    print(f"{list(cfg.seeds)}\nshare of it that comes back, mean ± deviation over seeds, by layer\n")
    for name, values in stacked.items():
        for place, mean, spread in zip(PLACES, values.mean(0), runs.spread(values), strict=True):
            print(f"{name:10} {place:8}", " ".join(f"{m:6.2f} ±{s:4.2f}" for m, s in zip(mean, spread, strict=True)))
    state = stacked["state"].mean(0)
    handover = next((layer for layer in range(n_layers) if state[1, layer] > state[0, layer]), n_layers)
    early = {name: float(values.mean(0)[0].max()) for name, values in stacked.items()}
    print(
        f"\nUp to layer {handover - 1} it is the state at the subject that brings the answer back, from then on that at"
    )
    print("the last word: the early and the late site of Meng et al. At the subject, attention outputs bring back at")
    print(f"most {early['attention']:.2f} and MLP outputs {early['MLP']:.2f}; in GPT-2 XL it is the MLPs that do.")
    figure = make_subplots(cols=3, subplot_titles=list(stacked))
    for column, (name, values) in enumerate(stacked.items(), start=1):
        for place, mean, spread in zip(PLACES, values.mean(0), runs.spread(values), strict=True):
            line = {"name": f"{name}, {place}", "error_y": {"array": spread}, "mode": "lines+markers"}
            figure.add_scatter(x=np.arange(n_layers), y=mean, **line, row=1, col=column)
    figure.update_layout(title="Share of the answer's probability restored, by layer")
    figure.write_html(cfg.out / "causal_tracing.html")
    return stacked


if __name__ == "__main__":
    main(config.load(Trace, "configs/causal_tracing.toml"))
