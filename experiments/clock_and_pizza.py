"""Does a network add like a clock or like a pizza? Two small transformers modulo 59, trained alike but for attention.

Both put numbers on circles. A clock adds the angles of a and b, and reads the sum; a pizza finds the middle of the two
points, whose distance from the centre depends on a - b (Zhong et al. 2023, https://arxiv.org/abs/2306.17844). Three
things tell them apart: how alike a logit's gradients in both embeddings are (gradient symmetry), how little the correct
logit depends on the distance a - b (distance irrelevance), and which formula's logits those of one circle alone follow.

    python experiments/clock_and_pizza.py [--data DIR] [--out DIR]

Half a minute, offline; `data` holds files of github.com/fjzzq2002/pizza's `code/save`. It prints tables, and writes
`numbers.json` and `figure.html`. Models of another kind are refused, and those that do not add are neither.

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
from typing import Any, NamedTuple

from clock_and_pizza_models import forward, load, of_all_pairs
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

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


class Seen(NamedTuple):
    """What is drawn of a model that adds."""

    verdict: str
    share: jax.Array  # of the embeddings' power, by frequency
    strongest: int  # the frequency of the strongest circle
    correct: jax.Array  # [p p], logits by distance and sum
    alone: jax.Array  # the same with the strongest circle alone


def verdict(cfg: ClockAndPizza, symmetry: float, irrelevance: float) -> str:
    """What both signs say, or that they disagree."""
    votes = {symmetry > cfg.symmetry_of_pizza, irrelevance < cfg.irrelevance_of_clock}
    if len(votes) > 1:
        return "mixed"
    return "pizza" if True in votes else "clock"


def share_at_one_frequency(neurons: jax.Array) -> float:
    """How much of a neuron's variance over all pairs `[p p d_mlp]` is at its one best frequency, in the median."""
    variance = jnp.square(neurons - neurons.mean((0, 1))).sum((0, 1))
    of_one = fourier.pair_power(neurons)[1:].max(0)
    return jnp.median((of_one / variance)[variance > 0]).item()


def measure(w: dict[str, jax.Array], logits: jax.Array, neurons: jax.Array, cfg: ClockAndPizza) -> tuple[dict, Seen]:
    """The numbers of a model that adds, from logits `[p p p]` and neurons `[p p d_mlp]`, and what is drawn of it."""
    embeddings, p = w["embed.W_E"].T, len(logits)
    power = fourier.fourier_power(embeddings).sum(1)
    share = power / power[1:].sum()
    keys = fourier.key_frequencies(power)

    def with_circle_alone(k: int) -> jax.Array:
        circle = fourier.keep_frequencies(embeddings, np.array([k]))
        return of_all_pairs(w | {"embed.W_E": circle.T})[0]

    alone = {k: with_circle_alone(k) for k in keys}
    follows = {
        name: {k: jnp.corrcoef(y.ravel(), formula(p, k).ravel())[0, 1].item() for k, y in alone.items()}
        for name, formula in FORMULAS.items()
    }

    triples = [jax.random.randint(jax.random.key(seed), (cfg.n_triples, 3), 0, p) for seed in cfg.seeds]
    symmetries = [fourier.gradient_symmetry(forward)(w, sample).mean().item() for sample in triples]
    correct = fourier.correct_logits(logits)
    irrelevance = fourier.distance_irrelevance(correct).item()
    numbers = {
        "key_frequencies": {k: share[k].item() for k in keys},
        "neuron_at_one_frequency": share_at_one_frequency(neurons),
        "gradient_symmetry": {"mean": np.mean(symmetries).item(), "sd_over_seeds": np.std(symmetries, ddof=1).item()},
        "distance_irrelevance": irrelevance,
        "correlation_of_a_circle_alone_with": follows,
        "verdict": verdict(cfg, np.mean(symmetries).item(), irrelevance),
    }
    return numbers, Seen(numbers["verdict"], share, keys[0], correct, fourier.correct_logits(alone[keys[0]]))


def draw(seen: dict[str, Seen]) -> go.Figure:
    """A row for each model: its frequencies, and its correct logits, all and those of the strongest circle."""
    kinds = ("embeddings' share by frequency", "correct logits", "those of the strongest circle")
    titles = [f"{name}, {one.verdict}: {kind}" for name, one in seen.items() for kind in kinds]
    figure = make_subplots(len(seen), 3, subplot_titles=titles).update_annotations(font_size=13)
    for row, one in enumerate(seen.values(), start=1):
        figure.add_bar(x=np.arange(1, len(one.share)), y=np.asarray(one.share[1:]), row=row, col=1)
        p = len(one.correct)
        a, b = np.ogrid[:p, :p]
        for column, k, correct in ((2, 1, one.correct), (3, one.strongest, one.alone)):
            z = np.empty((p, p))
            z[k * (a - b) % p, (a + b) % p] = correct  # stripes, where the distance decides
            figure.add_heatmap(z=z, showscale=False, row=row, col=column)
            figure.update_xaxes(title=f"a + b modulo {p}", row=row, col=column)
            figure.update_yaxes(title=f"{k} (a - b) modulo {p}" if k > 1 else "a - b", row=row, col=column)
    return figure.update_layout(showlegend=False, height=420 * len(seen))


def table_of_models(numbers: dict[str, dict[str, Any]]) -> str:
    """A row for each model; one that does not add has no more than its accuracy."""
    rows = []
    for name, found in numbers.items():
        row = {"model": name, "attention": f"{found['attention']:.3g}", "accuracy": f"{found['accuracy']:.1%}"}
        if "gradient_symmetry" in found:
            mean, spread = found["gradient_symmetry"].values()
            row["gradient symmetry"] = f"{mean:.4f} ±{spread:.4f}"
            row["irrelevance"] = f"{found['distance_irrelevance']:.4f}"
            row["neurons at one frequency"] = f"{found['neuron_at_one_frequency']:.1%}"
        rows.append(row | {"verdict": found["verdict"]})
    return runs.table(rows)


def table_of_circles(numbers: dict[str, dict[str, Any]]) -> str:
    """A row for each key frequency of the models that add."""
    rows = []
    for name, found in numbers.items():
        for k, share in found.get("key_frequencies", {}).items():
            follows = {kind: by_k[k] for kind, by_k in found["correlation_of_a_circle_alone_with"].items()}
            rows.append(
                {
                    "model": name,
                    "frequency": k,
                    "share of power": f"{share:.1%}",
                    "correlation, alone, with a clock": f"{follows['clock']:z.3f}",
                    "with a pizza": f"{follows['pizza']:z.3f}",
                }
            )
    return runs.table(rows)


def main(cfg: ClockAndPizza) -> dict[str, Any]:
    """The numbers of every model, by name."""
    if not cfg.models or len(cfg.seeds) < 2:
        raise ValueError("clock_and_pizza: give at least one model, and two seeds, over which the spread is taken")
    loaded = {name: load(cfg.data, name) for name in cfg.models}  # all are checked before one is run
    found: dict[str, dict[str, Any]] = {}
    seen: dict[str, Seen] = {}
    for name, w in loaded.items():
        logits, neurons = of_all_pairs(w)
        p = len(logits)
        a, b = np.ogrid[:p, :p]
        accuracy = np.mean(logits.argmax(-1) == (a + b) % p).item()
        print(f"{name}: {accuracy:.1%} of the {p * p} sums modulo {p} are right", flush=True)
        found[name] = {"attention": w["attn_coeff"].item(), "accuracy": accuracy, "verdict": "neither: does not add"}
        if accuracy >= cfg.least_accuracy:
            numbers, seen[name] = measure(w, logits, neurons, cfg)
            found[name] |= numbers
    print("", table_of_models(found), sep="\n")
    settings = {"seeds": cfg.seeds, "n_triples": cfg.n_triples, "least_accuracy": cfg.least_accuracy}
    cfg.out.mkdir(parents=True, exist_ok=True)
    (cfg.out / "numbers.json").write_text(json.dumps(settings | found, indent=2) + "\n", encoding="utf-8")
    if seen:
        print("", table_of_circles(found), sep="\n")
        draw(seen).write_html(cfg.out / "figure.html")
    return settings | found


if __name__ == "__main__":
    try:
        main(config.load(ClockAndPizza, "configs/clock_and_pizza.toml"))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
