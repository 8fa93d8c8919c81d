"""Tells a clock from a pizza: two small transformers that add modulo 59, trained alike but for their attention.

`python experiments/clock_and_pizza.py [--data DIR] [--out DIR]` prints tables and writes `numbers.json` and
`figure.html`, offline, in half a minute. The models are of Zhong et al. 2023, arXiv:2306.17844; `data` holds files of
github.com/fjzzq2002/pizza's `code/save`. Models of another kind are refused, and those that do not add are neither.

Both add without an error. With attention held constant (the paper's model A) it is a pizza: nearly symmetric in its two
embeddings, and the correct logit falls with the distance a - b. With ordinary attention it is a clock, another run than
the paper's model B. Symmetry alone would prove little, since constant attention all but forces it; distance irrelevance
is not forced, nor how well the logits of one circle alone follow each formula (the pizza's weaker circles, at twice the
frequencies of the others, follow neither). The paper has 0.9937 and 0.17 for model A, 0.3336 and 0.85 for model B.
"""

from dataclasses import dataclass
import json
import os
from pathlib import Path
from typing import Any

from clock_and_pizza_models import forward, load, of_all_pairs
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp_jax import config, fourier

DATA = Path(os.environ.get("INTERP_JAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FORMULAS = {"clock": fourier.clock_logits, "pizza": fourier.pizza_logits}


@dataclass(frozen=True)
class ClockAndPizza:
    models: tuple[str, ...]
    seeds: tuple[int, ...]  # at least two
    n_triples: int  # (a, b, c) for gradient symmetry, a seed
    least_accuracy: float  # below it a model does not add, and is neither
    symmetry_of_pizza: float
    irrelevance_of_clock: float
    out: Path
    data: Path = DATA / "modular-addition"


def measure(w: dict[str, jax.Array], logits: jax.Array, x: jax.Array, cfg: ClockAndPizza) -> tuple[dict, Any, Any]:
    """The numbers of a model that adds, its embeddings' power by frequency, and correct logits: all, the strongest
    circle's. Of logits [p p p] and neurons [p p d_mlp]."""
    embeddings, p = w["embed.W_E"].T, len(logits)
    power, varying = fourier.fourier_power(embeddings).sum(1), jnp.square(x - x.mean((0, 1))).sum((0, 1))
    keys, of_one = fourier.key_frequencies(power), fourier.pair_power(x)[1:].max(0)
    alone = {k: of_all_pairs(w | {"embed.W_E": fourier.keep_frequencies(embeddings, np.array([k])).T})[0] for k in keys}
    follows = {
        name: {k: jnp.corrcoef(y.ravel(), formula(p, k).ravel())[0, 1].item() for k, y in alone.items()}
        for name, formula in FORMULAS.items()
    }
    triples = (jax.random.randint(jax.random.key(seed), (cfg.n_triples, 3), 0, p) for seed in cfg.seeds)
    symmetries = [fourier.gradient_symmetry(forward)(w, sample).mean().item() for sample in triples]
    irrelevance = fourier.distance_irrelevance(fourier.correct_logits(logits)).item()
    votes = {np.mean(symmetries).item() > cfg.symmetry_of_pizza, irrelevance < cfg.irrelevance_of_clock}
    numbers = {
        "key_frequencies": {k: (power[k] / power[1:].sum()).item() for k in keys},
        "neuron_at_one_frequency": jnp.median((of_one / varying)[varying > 0]).item(),
        "gradient_symmetry": {"mean": np.mean(symmetries).item(), "sd_over_seeds": np.std(symmetries, ddof=1).item()},
        "distance_irrelevance": irrelevance,
        "correlation_of_a_circle_alone_with": follows,
        "verdict": "mixed" if len(votes) > 1 else "pizza" if True in votes else "clock",
    }
    return numbers, power / power[1:].sum(), jnp.stack([fourier.correct_logits(y) for y in (logits, alone[keys[0]])])


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


def table(numbers: dict[str, dict[str, Any]]) -> str:
    """A row a model; then of those that add a row a frequency."""
    lines = ["model       attention  accuracy  gradient symmetry  irrelevance  neurons at one frequency  verdict"]
    below = ["", "model       frequency  share of power  correlation, alone, with a clock  with a pizza"]
    for name, row in numbers.items():
        cells = [f"{name:10}", f"{row['attention']:10.3g}", f"{row['accuracy']:9.1%}", *("",) * 3, row["verdict"]]
        if "gradient_symmetry" in row:
            mean, spread = row["gradient_symmetry"].values()
            cells[3:5] = f"{mean:10.4f} ±{spread:.4f}", f"{row['distance_irrelevance']:12.4f}"
            cells[5] = f"{row['neuron_at_one_frequency']:25.1%}"
            clock, pizza = row["correlation_of_a_circle_alone_with"].values()
            for k, share in row["key_frequencies"].items():
                below.append(f"{name:10} {k:10} {share:15.1%} {clock[k]:z33.3f} {pizza[k]:z13.3f}")
        lines.append("{} {} {} {:>18} {:>12} {:>25}  {}".format(*cells))
    return "\n".join(lines + below)


def main(cfg: ClockAndPizza) -> dict[str, Any]:
    if not cfg.models or len(cfg.seeds) < 2:
        raise ValueError("clock_and_pizza: give at least one model, and two seeds, over which the spread is taken")
    drawn, numbers = {}, {key: getattr(cfg, key) for key in ("seeds", "n_triples", "least_accuracy")}
    for name, w in {name: load(cfg.data, name) for name in cfg.models}.items():  # all are checked before one is run
        logits, neurons = of_all_pairs(w)
        a, b = np.ogrid[: len(logits), : len(logits)]
        accuracy = np.mean(logits.argmax(-1) == (a + b) % len(logits)).item()
        print(f"{name}: {accuracy:.1%} of the {a.size * b.size} sums modulo {len(logits)} are right", flush=True)
        numbers[name] = {"attention": w["attn_coeff"].item(), "accuracy": accuracy, "verdict": "neither: does not add"}
        if accuracy >= cfg.least_accuracy:
            found, *arrays = measure(w, logits, neurons, cfg)
            numbers[name] |= found
            drawn[name] = (numbers[name], *arrays)
    print("", table({name: numbers[name] for name in cfg.models}), sep="\n")
    cfg.out.mkdir(parents=True, exist_ok=True)
    (cfg.out / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    if drawn:
        draw(drawn).write_html(cfg.out / "figure.html")
    return numbers


if __name__ == "__main__":
    try:
        main(config.load(ClockAndPizza, "configs/clock_and_pizza.toml"))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
