"""Are features of a dictionary told by words better than neurons, directions by chance and principal components?

Bills et al. 2023, "Language models can explain neurons in language models", and Paulo et al. 2024,
https://arxiv.org/abs/2410.13928, score an explanation by what it foretells: the activations (simulation, Pearson's
correlation over strong and random texts), which texts a unit reacts to (detection) and to which tokens (fuzzing, both
balanced accuracy). Here explanations are token statistics, the words on, before or after which a unit fires, so that no
language model is asked: what is high is told by words, and a low score may be the explainer's fault. To see that, units
are planted: half fire on words, half a few tokens after them, which no word tells. Shuffled: the explanation of another
unit of the same basis.

    python experiments/explain_features.py [--model stories260K] [--text tinystories] [--out DIR]

Three minutes on two cores; with SmolLM2-135M about ten.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explain_bases import BASES, Training, activations, bases, drawn, mean, planted, read, record
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, explain
from interp_jax.explain import scores

SCORES = ("simulation", "simulation_random", "detection", "fuzzing")
COLUMNS = (*SCORES, "shuffled")
PLANTED = ("tokens", "context")


@dataclass(frozen=True)
class ExplainFeatures:
    model: str
    text: str  # of any other model than the microworld's: tinystories or wikitext2
    depths: tuple[float, ...]  # layers that are looked at, from 0, the first, to 1, the last
    n_tokens: int
    n_positions: int
    n_units: int  # of each basis and layer, and of each sort of planted ones
    least: int  # tokens on which a unit must fire
    training: Training
    seeds: tuple[int, ...]
    out: Path


def scored(evidence: dict[int, explain.Evidence]) -> dict[str, np.ndarray]:
    """Scores of the statistics of each unit, `[unit score 3]` with the interval's ends, nan where one is not defined.

    The last is the simulation by the next unit's explanation.
    """
    method = explain.offline()
    found = np.full((len(evidence), len(COLUMNS), 3), np.nan)
    told = [method.explain(one).read(()) for one in evidence.values()]
    for i, (one, said) in enumerate(zip(evidence.values(), told, strict=True)):
        made = {name: x for score in method.scorers.values() for name, x in score(said, one).read(()).scores.items()}
        other = scores.simulation(told[(i + 1) % len(told)].simulate, one).read(()).scores
        made |= {"shuffled": other["simulation"]} if "simulation" in other else {}
        for column, name in enumerate(COLUMNS):
            found[i, column] = made.get(name, (np.nan,) * 3)
    words = [str(said) for said in told]
    return {"scores": found, "units": np.array(list(evidence), int), "words": np.array(words, object)}


def study(cfg: ExplainFeatures, seed: int, begin: Any) -> dict[str, dict[str, np.ndarray]]:
    """By `"basis layer"` and by sort of planted units: scores of each unit, and its explanation."""
    begin("activations")
    of = read(cfg.model, cfg.text, cfg.n_tokens, cfg.n_positions, seed)
    layers = sorted({round(depth * (of.model.config.n_layers - 1)) for depth in cfg.depths})
    acts = activations(of, layers)
    begin("bases")
    where = {f"{name} {layer}": one for layer in layers for name, one in bases(cfg.training, acts[layer], seed).items()}
    begin("records")
    records = record(of, where) | planted(of, cfg.n_units, seed)
    begin("explanations")
    return {name: scored(drawn(one, of.strings, cfg.n_units, cfg.least, seed)) for name, one in records.items()}


def of_basis(found: list[dict], basis: str) -> np.ndarray:
    """The scores of all units of a basis, of every seed and layer, `[unit score]`."""
    return np.concatenate(
        [one[name]["scores"][..., 0] for one in found for name in one if name.startswith(f"{basis} ")]
    )


def row(found: list[dict], name: str) -> dict[str, str]:
    """Means over the units of each seed, and their spread over seeds; how many units have a detection score."""
    each = [one[name]["scores"] for one in found]
    cells = {column: runs.cell([mean(x[:, i, 0]) for x in each]) for i, column in enumerate(COLUMNS)}
    width = np.nanmean(np.concatenate([x[:, 0, 2] - x[:, 0, 1] for x in each]))
    return {"units": str(sum(len(x) for x in each))} | cells | {"width": f"{width:.2f}"}


def interval(values: np.ndarray) -> str:
    """The mean over units, and the interval of 95 % of a thousand draws of them."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return "-"
    means = kept[np.random.default_rng(0).integers(0, len(kept), (1000, len(kept)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{kept.mean():z.2f} [{low:z.2f}, {high:z.2f}]"


def story(found: list[dict]) -> str:
    """Which basis is told by words best, and whether the statistics fail where they should."""
    means = {basis: mean(of_basis(found, basis)[:, 0]) for basis in BASES}
    order = sorted(means, key=lambda basis: -means[basis])
    words, context = (mean(np.concatenate([one[sort]["scores"][:, 0, 0] for one in found])) for sort in PLANTED)
    wrong = max(abs(mean(of_basis(found, basis)[:, -1])) for basis in BASES)
    return (
        f"By simulation: {', '.join(f'{basis} {means[basis]:.2f}' for basis in order)}. Of planted units, those of "
        f"words have {words:.2f}, and those of the context {context:.2f}: what these statistics do not tell may have "
        f"an explanation all the same. That of another unit of the same basis has {wrong:.2f} at most in size."
    )


def draw(cfg: ExplainFeatures, found: list[dict]) -> go.Figure:
    """Every unit's simulation score, by basis, beside planted ones and shuffled explanations."""
    figure = go.Figure()
    sorts = {basis: of_basis(found, basis) for basis in BASES}
    sorts |= {f"planted: {sort}": np.concatenate([one[sort]["scores"][..., 0] for one in found]) for sort in PLANTED}
    for name, values in sorts.items():
        figure.add_box(y=values[:, 0], name=name, boxpoints="all", pointpos=0, showlegend=False)
    shuffled = np.concatenate([values[:, -1] for name, values in sorts.items() if name in BASES])
    figure.add_box(y=shuffled, name="shuffled", boxpoints="all", pointpos=0, showlegend=False)
    title = f"{Path(cfg.model).name}: how well the words of an explanation foretell a unit's activations"
    return figure.update_layout(title=title, yaxis_title="simulation: Pearson's correlation", height=600)


def examples(found: list[dict], names: list[str]) -> str:
    """The explanation of the best unit of each, of the first seed."""
    rows = []
    for name in names:
        one = found[0][name]
        best = int(np.nanargmax(one["scores"][:, 0, 0]))
        rows.append({"best of": name, "unit": str(one["units"][best]), "says": str(one["words"][best])[:80]})
    return runs.table(rows)


def main(cfg: ExplainFeatures) -> list[dict]:
    """What `study` finds of every seed."""
    found: list[dict] = []
    with runs.Progress("explain_features", 4 * len(cfg.seeds)) as progress:
        for seed in cfg.seeds:
            found.append(study(cfg, seed, lambda step, seed=seed: progress.begin(f"{seed}: {step}")))
            runs.write("explain_features", cfg, {"found": found})
    names = [name for name in found[0] if name not in PLANTED]
    about = (
        f"{cfg.model}: means over units by chance that fire on {cfg.least} tokens or more, ± spread over seeds "
        f"{list(cfg.seeds)}; width: of the interval of a single unit's simulation. Detection and fuzzing are at 0.5 by "
        "chance, the others at 0."
    )
    pooled = [
        {"all layers and seeds": basis} | {c: interval(of_basis(found, basis)[:, i]) for i, c in enumerate(COLUMNS)}
        for basis in BASES
    ]
    table = runs.table([{"basis and layer": name} | row(found, name) for name in names])
    sorts = runs.table([{"planted": name} | row(found, name) for name in PLANTED])
    parts = (about, table, runs.table(pooled), sorts, examples(found, [*names, *PLANTED]), story(found))
    runs.finish("explain_features", cfg, {"found": found}, draw(cfg, found), *parts)
    return found


if __name__ == "__main__":
    main(config.load(ExplainFeatures, "configs/explain_features.toml"))
