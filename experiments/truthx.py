"""Does an edit in the space of the truth make a model truthful, and the other way round a liar?

TruthX (Zhang et al. 2024, https://arxiv.org/abs/2402.17811): an autoencoder of what attention and MLPs write, of all
layers, keeps apart what is said and whether it is true; the places where it tells that best, on pairs held out, are
edited. `microworld-chat` agrees with a user's false belief and contradicts other people's; a pair is one belief of
others and of the user, read and edited where the answer is to come, as in the released code, and the pairs of country
and belief that are tested stand in no training. Of a real model a pair is a true and a false answer to a question of
TruthfulQA, read at their last token (the paper: at the words that both have), and it is tested by multiple choice on
other questions, edited at every token. Perplexity too is that of texts edited at every token. How many places and how
far is chosen on examples that are not tested, and the same strength is then tried backwards. Beside it: pairs whose
sides are shuffled, random directions in the same latent space, and the difference of means at its places.

    python experiments/truthx.py [--model smollm2.gguf] [--out DIR]

Two minutes on two idle cores.
"""

from dataclasses import dataclass, replace
from functools import partial
import itertools
from pathlib import Path
from typing import Any

import doses
import jax
import jax.numpy as jnp
import numpy as np
import runs
import truthx_pairs
from truthx_pairs import SITES, Acts

from interp_jax import config, models, steering

KINDS = ("truthx", "shuffled", "random", "means")


@dataclass(frozen=True)
class Truths:
    model: str
    n_train: int  # pairs of prompts, or questions
    n_choose: int
    n_test: int
    n_tokens: int  # of a question with an answer, at most
    n_texts: int  # of the perplexity
    n_places: tuple[int, ...]  # of attention and MLPs, of which one is chosen
    strengths: tuple[float, ...]  # alpha, of which a positive one is chosen
    widths: tuple[int, ...]
    n_steps: int
    n_pairs: int  # in a step
    learning_rate: float
    seeds: tuple[int, ...]
    out: Path


def best(accuracy: Acts, apart: Acts, n: int) -> Acts:
    """The `n` places of the largest accuracy, among like ones those farthest apart, site -> bool `[layer]`."""
    first, second = (np.concatenate([of[site] for site in SITES]) for of in (accuracy, apart))
    chosen = np.isin(np.arange(len(first)), np.lexsort((-second, -first))[:n])
    return dict(zip(SITES, np.split(chosen, len(SITES)), strict=True))


def of_means(sides: list[Acts], where: Acts, alpha: Any, position: Any) -> doses.Edits:
    """The difference of means added at the same places, with the norm of the value there as its unit."""
    edits = {}
    for site in SITES:
        if len(rows := np.flatnonzero(where[site])):
            vectors = steering.difference_of_means(*(jnp.asarray(side[site][rows]) for side in sides))
            made = steering.SteeringVector.create(vectors, site, layers=rows.tolist())
            edits[site] = made.edit(alpha, position=position)
    return edits


def study(cfg: Truths, model: Any, tokenizer: Any, seed: int, begin: Any) -> dict:
    """Accuracies by site `[layer]`, the choice and its grid, and scores of each kind by name `[strength]`."""
    begin("activations")
    world = cfg.model.startswith("microworld")
    position: Any = -1 if world else None
    make = truthx_pairs.of_world if world else truthx_pairs.of_questions
    positive, negative, groups, known, test = make(cfg, model, tokenizer, seed)
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    train = np.isin(groups, rng.permutation(np.unique(groups))[: int(0.8 * len(np.unique(groups)))])
    sides = [{site: x[:, train] for site, x in side.items()} for side in (positive, negative)]
    flipped = rng.random((int(train.sum()), 1)) < 0.5
    shuffled = [{s: np.where(flipped, b[s], a[s]) for s in SITES} for a, b in (sides, sides[::-1])]
    begin("training")
    trained = partial(
        steering.train_truthx,
        key,
        widths=cfg.widths,
        n_steps=cfg.n_steps,
        n_pairs=min(cfg.n_pairs, len(flipped)),
        learning_rate=cfg.learning_rate,
    )
    (truthx, losses), (null, _) = trained(*sides), trained(*shuffled)
    random = {site: truthx.negative[site] + steering.random(key, delta) for site, delta in truthx.delta.items()}
    told = [truthx.tell({site: x[:, ~train] for site, x in side.items()}) for side in (positive, negative)]
    accuracy, apart = {}, {}
    for site in SITES:
        high, low = (np.asarray(of[site]) for of in told)
        accuracy[site] = ((high > 0).mean(1) + (low < 0).mean(1)) / 2
        apart[site] = (high.mean(1) - low.mean(1)) / np.sqrt((high.var(1) + low.var(1)) / 2)
    begin("choice")
    grid = np.full((len(cfg.n_places), len(cfg.strengths)), -np.inf)
    for (i, n), (j, alpha) in itertools.product(enumerate(cfg.n_places), enumerate(cfg.strengths)):
        if alpha >= 0:
            edits = truthx.edits(alpha, where=best(accuracy, apart, n), position=position)
            grid[i, j] = next(iter(known(edits).values()))
    i, j = np.unravel_index(grid.argmax(), grid.shape)
    where = best(accuracy, apart, cfg.n_places[i])
    found: dict[str, Any] = {"accuracy": accuracy, "apart": apart, "where": where, "alpha": cfg.strengths[j]}
    found |= {"grid": grid, "losses": {part: np.asarray(of[-1]) for part, of in losses.items()}}
    cost = {"": doses.perplexity(model, doses.texts(cfg.model, tokenizer, cfg.n_texts, without=("sycophancy",)))}
    edits_of = {kind: partial(made.edits, where=where) for kind, made in (("truthx", truthx), ("shuffled", null))}
    edits_of |= {"random": partial(replace(truthx, positive=random).edits, where=where)}
    edits_of |= {"means": lambda alpha, position: of_means(sides, where, alpha, position)}
    for kind in KINDS:
        begin(kind)
        scores = [test(edits_of[kind](alpha, position=position)) for alpha in cfg.strengths]
        found[kind] = {name: np.array([one[name] for one in scores]) for name in scores[0]}
        found[kind]["perplexity"] = doses.response(cfg.strengths, partial(edits_of[kind], position=None), cost)[""]
    return found


def main(cfg: Truths) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    found = runs.each(
        cfg.seeds,
        3 + len(KINDS),
        "truthful space",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("truthx", cfg, found),
    )
    strengths, names = list(cfg.strengths), [name for name in found["truthx"] if name != "perplexity"]
    none, alphas = strengths.index(0.0), found["alpha"]
    columns = [strengths.index(alpha) for alpha in alphas]
    rows = []
    for kind in KINDS:
        row = {"edit": kind}
        for name in (*names, "perplexity"):
            values, each = found[kind][name], np.arange(len(alphas))
            row[f"{name}: backwards"] = runs.cell(values[each, [strengths.index(-alpha) for alpha in alphas]])
            row[f"{name}: without"] = runs.cell(values[:, none])
            row[f"{name}: forwards"] = runs.cell(values[each, columns])
        rows.append(row)
    counts = [int(sum(found["where"][site][run].sum() for site in SITES)) for run in range(len(alphas))]
    picks = ", ".join(f"{n} places, alpha {alpha:g}" for n, alpha in zip(counts, alphas, strict=True))
    ranked = max(found["accuracy"][site].mean(0).max() for site in SITES)
    story = (
        f"Chosen on other examples: {picks}. {names[0]} {doses.told(strengths, found['truthx'][names[0]])}, {names[1]} "
        f"{doses.told(strengths, found['truthx'][names[1]])}. The space tells {ranked:.2f} of held-out pairs' sides at "
        "its best place."
    )
    about = f"{cfg.model}: on examples that nothing was chosen on, mean ± spread over seeds {list(cfg.seeds)}"
    curves = {f"{kind}: {names[0]}": found[kind][names[0]] for kind in KINDS}
    curves[f"truthx: {names[1]}"] = found["truthx"][names[1]]
    figure = doses.draw(
        f"{Path(cfg.model).name} edited in a space of truth",
        strengths,
        curves,
        {kind: found[kind]["perplexity"] for kind in ("truthx", "means")},
    )
    runs.finish("truthx", cfg, found, figure.update_layout(xaxis_title="alpha"), about, runs.table(rows), story)
    return found


if __name__ == "__main__":
    main(config.load(Truths, "configs/truthx.toml"))
