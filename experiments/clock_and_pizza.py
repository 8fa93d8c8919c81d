"""Tells a clock from a pizza: two small transformers that add modulo 59, trained alike but for their attention.

`python experiments/clock_and_pizza.py [--data DIR] [--out DIR]` prints a table and writes `numbers.json` and
`figure.html`, offline, in half a minute. The models are of Zhong et al. 2023, arXiv:2306.17844; `data` holds files of
github.com/fjzzq2002/pizza's `code/save`. A model is a dict of arrays, and a plain function of it names the sites.

Both add without an error, on a few circles. With attention held constant (the paper's model A) it is a pizza: nearly
symmetric in its two embeddings, and the correct logit falls with the distance a - b. With ordinary attention it is a
clock; it is another run than the paper's model B, so that its numbers are its own. Symmetry alone would prove little,
since constant attention all but forces it; distance irrelevance is not forced, nor how well the logits of one circle
alone follow each formula (the pizza's weaker circles, at twice the frequencies of the others, follow neither: the paper
calls them accompanying). The paper has 0.9937 and 0.17 for model A, 0.3336 and 0.85 for model B.
"""

from dataclasses import dataclass
from functools import partial
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

import interp_jax as ij
from interp_jax import config, lens
from interp_jax.io import torch_files

DATA = Path(os.environ.get("INTERP_JAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FORMULAS = {"clock": lens.clock_logits, "pizza": lens.pizza_logits}


@dataclass(frozen=True)
class ClockAndPizza:
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    n_triples: int  # (a, b, c) for gradient symmetry, a seed
    symmetry_of_pizza: float
    irrelevance_of_clock: float
    out: Path
    data: Path = DATA / "modular-addition"


def load(folder: Path, name: str) -> dict[str, jax.Array]:
    arrays = torch_files.read(folder / f"model_{name}.pt")
    arrays["attn_coeff"] = np.float32(json.loads((folder / f"config_{name}.json").read_text())["attn_coeff"])
    return {key.removeprefix("blocks.0."): jnp.asarray(array) for key, array in arrays.items()}


def forward(w: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
    """Logits [batch p] at the second of tokens [batch 2]. Nothing is masked, as in the authors' code."""
    site = partial(ij.site, layer=0, axes=("position", "d_model"))
    x = ij.site(w["embed.W_E"].T[tokens], "embed", axes=("position", "d_model"))
    x = site(x + w["pos_embed.W_pos"], "blocks.resid_pre")
    q, k, v = (jnp.einsum("bpm,hdm->bphd", x, w[f"attn.W_{name}"]) for name in "QKV")
    pattern = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5)
    pattern = w["attn_coeff"] * pattern + (1 - w["attn_coeff"])  # rows of ones where it is held constant
    pattern = site(pattern, "blocks.attn.pattern", axes=("head", "query", "key"))
    z = jnp.einsum("bhqk,bkhd->bqhd", pattern, v).reshape(*x.shape[:-1], -1)
    x = site(x + site(z @ w["attn.W_O"].T, "blocks.attn_out"), "blocks.resid_mid")
    neurons = site(jax.nn.relu(x @ w["mlp.W_in"].T + w["mlp.b_in"]), "blocks.mlp.post", axes=("position", "d_mlp"))
    x = site(x + site(neurons @ w["mlp.W_out"].T + w["mlp.b_out"], "blocks.mlp_out"), "blocks.resid_post")
    return x[:, -1] @ w["unembed.W_U"]


def measure(w: dict[str, jax.Array], cfg: ClockAndPizza) -> tuple[dict[str, Any], jax.Array, jax.Array]:
    """The numbers of a model, the embeddings' power by frequency, and correct logits: all, the strongest circle's."""
    embeddings, neurons, p = w["embed.W_E"].T, "blocks.0.mlp.post", w["embed.W_E"].shape[1]
    pairs = jnp.stack(jnp.divmod(jnp.arange(p * p), p), 1)
    logits, acts = jax.jit(ij.capture(forward, {neurons: lambda x: x[:, -1]}))(w, pairs)
    logits, x = logits.reshape(p, p, p), acts[neurons].reshape(p, p, -1)
    power, varying = lens.fourier_power(embeddings).sum(1), jnp.square(x - x.mean((0, 1))).sum((0, 1))
    keys, of_one = lens.key_frequencies(power), lens.pair_power(x)[1:].max(0)

    def alone(k: int) -> jax.Array:
        circle = lens.keep_frequencies(embeddings, jnp.array([k]))
        return jax.jit(forward)(w | {"embed.W_E": circle.T}, pairs).reshape(p, p, p)

    def follows(k: int, formula: Any) -> float:
        return jnp.corrcoef(alone(k).ravel(), formula(p, k).ravel())[0, 1].item()

    triples = (jax.random.randint(jax.random.key(seed), (cfg.n_triples, 3), 0, p) for seed in cfg.seeds)
    symmetries = [lens.gradient_symmetry(forward, w, sample).mean().item() for sample in triples]
    irrelevance = lens.distance_irrelevance(lens.correct_logits(logits)).item()
    votes = {np.mean(symmetries).item() > cfg.symmetry_of_pizza, irrelevance < cfg.irrelevance_of_clock}
    numbers = {
        "attention": w["attn_coeff"].item(),
        "accuracy": (logits.argmax(-1) == pairs.sum(1).reshape(p, p) % p).mean().item(),
        "key_frequencies": {k: (power[k] / power[1:].sum()).item() for k in keys},
        "neuron_at_one_frequency": jnp.median((of_one / varying)[varying > 0]).item(),
        "gradient_symmetry": {"mean": np.mean(symmetries).item(), "sd_over_seeds": np.std(symmetries, ddof=1).item()},
        "distance_irrelevance": irrelevance,
        "correlation_of_a_circle_alone_with": {name: {k: follows(k, f) for k in keys} for name, f in FORMULAS.items()},
        "verdict": "mixed" if len(votes) > 1 else "pizza" if True in votes else "clock",
    }
    return numbers, power / power[1:].sum(), jnp.stack([lens.correct_logits(y) for y in (logits, alone(keys[0]))])


def draw(results: dict[str, tuple[dict[str, Any], jax.Array, jax.Array]]) -> go.Figure:
    kinds = ("embeddings' share by frequency", "correct logits", "those of the strongest circle")
    titles = [f"{name}, {found[0]['verdict']}: {kind}" for name, found in results.items() for kind in kinds]
    figure = make_subplots(len(results), 3, subplot_titles=titles).update_annotations(font_size=13)
    for row, (numbers, power, correct) in enumerate(results.values(), 1):
        figure.add_bar(x=np.arange(1, len(power)), y=np.asarray(power[1:]), row=row, col=1)
        a, b = np.ogrid[: len(correct[0]), : len(correct[0])]
        for column, k in ((2, 1), (3, next(iter(numbers["key_frequencies"])))):
            z = np.empty(correct.shape[1:])
            z[k * (a - b) % len(z), (a + b) % len(z)] = correct[column - 2]  # stripes, where the distance decides
            figure.add_heatmap(z=z, showscale=False, row=row, col=column)
            figure.update_xaxes(title=f"a + b modulo {len(z)}", row=row, col=column)
            figure.update_yaxes(title=f"{k} (a - b) modulo {len(z)}" if k > 1 else "a - b", row=row, col=column)
    return figure.update_layout(showlegend=False, height=420 * len(results))


def main(cfg: ClockAndPizza) -> dict[str, Any]:
    results = {name: measure(load(cfg.data, name), cfg) for name in cfg.models}
    numbers = {"seeds": cfg.seeds, "n_triples": cfg.n_triples} | {name: found[0] for name, found in results.items()}
    cfg.out.mkdir(parents=True, exist_ok=True)
    (cfg.out / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    draw(results).write_html(cfg.out / "figure.html")
    return numbers


if __name__ == "__main__":
    found = json.dumps(main(config.load(ClockAndPizza, "configs/clock_and_pizza.toml")))
    for name, rows in json.loads(found, parse_float=lambda x: float(f"{float(x):.4g}")).items():
        print(name, *(rows.items() if isinstance(rows, dict) else [rows]), sep="\n    ")
