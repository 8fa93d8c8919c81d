"""Does a shift of a few heads, along what tells truth from error there, make a model tell the truth?

Inference-time intervention (Li et al. 2023, https://arxiv.org/abs/2306.03341): a probe reads each head's output, the
best heads are shifted by alpha standard deviations along their probes at every token. `microworld-chat` agrees with a
user's false belief and contradicts other people's; its heads are read where the answer is to come, with whose belief it
is as the label, and the pairs of country and belief that are tested stand in no training. A real model is read at the
end of TruthfulQA's true and false answers, and tested by multiple choice on other questions. How many heads and how far
is chosen on examples that are not tested. Beside it: random directions, and heads drawn at random.

    python experiments/iti.py [--model smollm2.gguf] [--out DIR]

A minute on two cores; ten for SmolLM2-135M.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import itertools
from pathlib import Path
from typing import Any

import choices
import doses
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

import interp_jax as ij
from interp_jax import config, models, probes, steering
from interp_jax.data import tasks
from interp_jax.interventions import add, per_layer

SITE = "blocks.attn.z"
Scored = Callable[[doses.Edits], dict[str, float]]  # what is wanted comes first


@dataclass(frozen=True)
class Shift:
    model: str
    n_train: int  # prompts, or questions
    n_choose: int
    n_test: int
    n_tokens: int  # of a question with an answer, at most
    n_texts: int  # of the perplexity
    n_heads: tuple[int, ...]  # K, of which one is chosen
    strengths: tuple[float, ...]  # alpha, of which one is chosen
    l2: float
    seeds: tuple[int, ...]
    out: Path


def outputs(model: Any, tokens: Any, mask: Any, chunk: int = 32) -> jax.Array:
    """Outputs of all heads at the last token, float32 `[layer head prompt d_head]`."""
    read = ij.capture(models.forward, {SITE: lambda z: z[:, -1].astype(jnp.float32)}, output=False)
    parts = []
    for start in range(0, len(tokens), chunk):
        rows = np.minimum(np.arange(start, start + chunk), len(tokens) - 1)
        parts.append(read(model, jnp.asarray(tokens)[rows], attention_mask=jnp.asarray(mask)[rows])[SITE])
    return jnp.moveaxis(jnp.concatenate(parts, axis=1)[:, : len(tokens)], 1, 2)


def of_world(cfg: Shift, model: Any, tokenizer: Any, seed: int) -> tuple[Any, np.ndarray, Scored, Scored]:
    """Tokens and mask with a label each, and what scores edits on examples to choose by and on held-out ones."""
    keys = jax.random.split(jax.random.key(seed), 3)
    train, known, test = (
        tasks.sycophancy(key, tokenizer, n, split=split)
        for key, n, split in zip(
            keys, (cfg.n_train, cfg.n_choose, cfg.n_test), ("train", "train", "heldout"), strict=True
        )
    )

    def scored(task: Any, edits: doses.Edits) -> dict[str, float]:
        f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
        said, own = np.asarray(ij.intervene(f, edits)(model, task.clean).argmax(-1)), task.attributes["own"] == "yes"
        truth = np.where(own, task.distractors, task.answers)
        return {
            "truth against the user": float((said == truth)[own].mean()),
            "else": float((said == truth)[~own].mean()),
        }

    y = (train.attributes["own"] == "no").astype(np.int32)
    return (train.clean, train.mask), y, partial(scored, known), partial(scored, test)


def of_questions(cfg: Shift, model: Any, tokenizer: Any, seed: int) -> tuple[Any, np.ndarray, Scored, Scored]:
    """The same of TruthfulQA, with every answer of the questions to train on."""
    n = cfg.n_train + cfg.n_choose + cfg.n_test
    some = choices.questions(seed, n, cfg.n_tokens, tokenizer)
    train, known, test = (
        choices.choices(tokenizer, part)
        for part in (some[: cfg.n_train], some[cfg.n_train : -cfg.n_test], some[-cfg.n_test :])
    )

    def scored(given: choices.Choices, edits: doses.Edits) -> dict[str, float]:
        return dict(zip(("MC1", "MC2"), choices.mc(given, choices.log_probs(model, given, edits)), strict=True))

    return (train.tokens, train.mask), train.true.astype(np.int32), partial(scored, known), partial(scored, test)


def study(cfg: Shift, model: Any, tokenizer: Any, seed: int, begin: Any) -> dict:
    """Accuracy of probes `[layer head]`; scores by name, `[K alpha]` to choose by and `[alpha]` as tested."""
    begin("probes")
    make = of_world if cfg.model.startswith("microworld") else of_questions
    (tokens, mask), y, known, test = make(cfg, model, tokenizer, seed)
    x = outputs(model, tokens, mask)
    train = np.random.default_rng(seed).random(len(y)) < 0.7
    probe = probes.logistic(x, y, l2=cfg.l2, weights=train)
    accuracy = probes.scores(probe, x, y, weights=~train).accuracy
    means = jnp.asarray(x[:, :, y == 1].mean(2) - x[:, :, y == 0].mean(2))
    key = jax.random.key(seed)
    wanted = next(iter(known({})))

    def edits(shifts: jax.Array, alpha: Any) -> doses.Edits:
        return {SITE: per_layer(add(jnp.float32(alpha) * shifts))}

    grid = np.zeros((2, len(cfg.n_heads), len(cfg.strengths)))
    directions = (probe.direction, means)
    for (i, direction), (j, k) in itertools.product(enumerate(directions), enumerate(cfg.n_heads)):
        begin(f"{k} heads along {('probes', 'means')[i]}")
        shifts = steering.head_shifts(x, direction, accuracy, k)
        grid[i, j] = [known(edits(shifts, alpha))[wanted] for alpha in cfg.strengths]
    i, j, best = np.unravel_index(grid.argmax(), grid.shape)
    k = cfg.n_heads[j]
    drawn = jax.random.uniform(key, accuracy.shape)
    kinds = {
        "chosen": steering.head_shifts(x, directions[i], accuracy, k),
        "random heads": steering.head_shifts(x, directions[i], drawn, k),
    }
    kinds["random directions"] = steering.random(key, kinds["chosen"])
    found: dict[str, Any] = {"accuracy": np.asarray(accuracy), "grid": grid, "k": k, "alpha": cfg.strengths[best]}
    found["along"] = ("probes", "means")[i]
    for kind, shifts in kinds.items():
        begin(kind)
        told = [test(edits(shifts, alpha)) for alpha in cfg.strengths]
        found[kind] = {name: np.array([one[name] for one in told]) for name in told[0]}
    texts = doses.texts(cfg.model, tokenizer, cfg.n_texts, without=("sycophancy",))
    begin("perplexity")
    cost = {"": doses.perplexity(model, texts)}
    found["perplexity"] = doses.response(cfg.strengths, partial(edits, kinds["chosen"]), cost)[""]
    return found


def main(cfg: Shift) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    found = runs.each(
        cfg.seeds,
        2 * len(cfg.n_heads) + 5,
        "shifts of heads",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("iti", cfg, found),
    )
    names, at = list(found["chosen"]), [list(cfg.strengths).index(alpha) for alpha in found["alpha"]]
    rows = []
    for kind in ("chosen", "random directions", "random heads"):
        row = {"shift": kind}
        for name in names:
            values = found[kind][name]
            row[f"{name}, without"] = runs.cell(values[:, list(cfg.strengths).index(0.0)])
            row[f"{name}, with"] = runs.cell(values[np.arange(len(values)), at])
        rows.append(row)
    picks = ", ".join(
        f"{k} heads along {along}, alpha {alpha:g}"
        for k, along, alpha in zip(found["k"], found["along"], found["alpha"], strict=True)
    )
    costs = np.array([found["perplexity"][run, i] for run, i in enumerate(at)])
    about = f"{cfg.model}: on examples that nothing was chosen on, mean ± spread over seeds {list(cfg.seeds)}"
    story = (
        f"Chosen on other examples: {picks}. {names[0]} {doses.told(cfg.strengths, found['chosen'][names[0]])}. "
        f"Perplexity of other texts {runs.cell(found['perplexity'][:, list(cfg.strengths).index(0.0)])} without and "
        f"{runs.cell(costs)} with it. Probes of single heads reach {found['accuracy'].max((1, 2)).mean():.2f}."
    )
    curves = {f"{kind}: {names[0]}": found[kind][names[0]] for kind in ("chosen", "random directions", "random heads")}
    curves[f"chosen: {names[1]}"] = found["chosen"][names[1]]
    title = f"Heads of {Path(cfg.model).name} shifted toward truth"
    figure: go.Figure = doses.draw(title, cfg.strengths, curves, {"chosen": found["perplexity"]})
    runs.finish("iti", cfg, found, figure.update_layout(xaxis_title="alpha"), about, runs.table(rows), story)
    return found


if __name__ == "__main__":
    main(config.load(Shift, "configs/iti.toml"))
