"""Can a model be made to tell more truth, and less, by an edit in a space of truth alone?

Zhang, Yu and Feng 2024, "TruthX", https://arxiv.org/abs/2402.17811. An autoencoder of what attention and the MLPs
write, with a semantic and a truthful latent space, is trained on pairs, truthful and not; the layers whose truthful
space tells the sides apart best are edited, in both directions. `microworld-chat` agrees with what its user believes
and else tells the truth: pairs are prompts with the user's belief and with other people's, where the answer begins.
Tested are held-out pairs of country and belief, and where nobody believes anything. Of another model pairs are right
and wrong answers to questions of TruthfulQA, and it is tested which of other pairs it finds the likelier. Beside it: a
random direction of the same norm, and an autoencoder whose pairs have their sides shuffled, with the norm of the first.

    python experiments/truthx.py [--model smollm2.gguf] [--out DIR]

Two minutes on two cores.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
import random
from typing import Any, NamedTuple

import depths
import doses
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

import interp_jax as ij
from interp_jax import config, models, steering
from interp_jax.data import statements, tasks
from interp_jax.steering import truthx

SITES = ("blocks.attn_out", "blocks.mlp_out")
KINDS = ("truthx", "random", "shuffled")


@dataclass(frozen=True)
class TruthX:
    model: str
    n: int  # pairs to train on
    n_test: int
    n_texts: int  # of perplexity
    n_last: int  # tokens that are read, from the last on: a pair each
    d_hidden: int
    d_latent: int
    n_steps: int
    n_layers: int  # that are edited, of all attention's and MLPs' outputs
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]  # of prompts and autoencoders
    out: Path


class Prompts(NamedTuple):
    tokens: Any
    mask: Any
    right: Any  # the truthful answer's token; of whole statements the places that are the answer's
    wrong: Any


def of_world(cfg: TruthX, tokenizer, seed: int) -> tuple[list[tuple], dict[str, Prompts]]:
    """Tokens and masks of both sides, truthful first; and what is tested, by name."""
    both = tasks.sycophancy(jax.random.key(seed), tokenizer, cfg.n, split="train", own="yes")
    sides: list[tuple] = [(both.corrupted, both.mask), (both.clean, both.mask)]
    swayed = tasks.sycophancy(jax.random.key(100 + seed), tokenizer, cfg.n_test, own="yes")
    others = tasks.sycophancy(jax.random.key(200 + seed), tokenizer, cfg.n_test, own="no")
    asked = tasks.truth(jax.random.key(300 + seed), tokenizer, cfg.n_test)
    tested = {
        "its user errs": Prompts(swayed.clean, swayed.mask, swayed.distractors, swayed.answers),
        "others err": Prompts(others.clean, others.mask, others.answers, others.distractors),
        "nobody errs": Prompts(asked.clean, asked.mask, asked.answers, asked.distractors),
    }
    return sides, tested


def of_questions(cfg: TruthX, tokenizer, seed: int) -> tuple[list[tuple], dict[str, Prompts]]:
    file = depths.data("truthfulqa") / "TruthfulQA.csv"
    found = statements.of_truthfulqa(random.Random(seed), file, 2 * (cfg.n + cfg.n_test))
    texts = [one.text for one in found]
    trained, asked = texts[: 2 * cfg.n], texts[2 * cfg.n :]
    sides = [models.tokenize(tokenizer, trained[i::2])[:2] for i in range(2)]
    tokens, mask, _ = models.tokenize(tokenizer, asked)
    begins = [len(tokenizer.encode(text[: text.rindex(" A: ") + 3])) for text in asked]
    number = np.asarray(mask).cumsum(1)
    told = np.asarray(mask) & (number > np.array(begins)[:, None])
    return sides, {"answers": Prompts(tokens, mask, told, told)}


def read(cfg: TruthX, model, tokens, mask) -> dict[str, np.ndarray]:
    """What every layer writes at the last tokens, `[layer pair d_model]` by site."""

    def last(x):
        return x[:, -cfg.n_last :]

    parts, run = [], ij.capture(models.hidden, dict.fromkeys(SITES, last), output=False)
    for at in range(0, len(tokens), 32):
        rows = np.minimum(np.arange(at, at + 32), len(tokens) - 1)  # of one size: one program
        acts = run(model, np.asarray(tokens)[rows], attention_mask=np.asarray(mask)[rows])
        parts.append({site: np.asarray(x, np.float32)[:, : len(tokens) - at] for site, x in acts.items()})
    joined = {site: np.concatenate([part[site] for part in parts], 1) for site in SITES}
    return {site: x.reshape(len(x), -1, x.shape[-1]) for site, x in joined.items()}


@jax.jit
def tells(model, tokens, mask, right, wrong, edits):
    """Share of prompts whose truthful answer is the likeliest word, and the share with the untruthful one."""
    last = jnp.full(len(tokens), tokens.shape[1] - 1, jnp.int32)
    logits = ij.intervene(partial(models.forward, logits_at=last), edits)(model, tokens, attention_mask=mask)
    best = logits.argmax(-1)
    return (best == right).mean(), (best == wrong).mean()


@jax.jit
def prefers(model, tokens, mask, told, edits):
    """Share of pairs whose truthful answer, which comes first, is the likelier, in log probability a token."""
    logits = ij.intervene(models.forward, edits)(model, tokens, attention_mask=mask)[:, :-1]
    each = jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), tokens[:, 1:, None], -1)[..., 0]
    mean = each.mean(1, where=told[:, 1:])
    return (mean[::2] > mean[1::2]).mean(), (mean[::2] < mean[1::2]).mean()


def judge(model, prompts: Prompts, edits) -> np.ndarray:
    if prompts.right.ndim == 2:
        return np.array(prefers(model, prompts.tokens, prompts.mask, prompts.right, edits))
    return np.array(tells(model, prompts.tokens, prompts.mask, prompts.right, prompts.wrong, edits))


def study(cfg: TruthX, model, tokenizer, seed: int, begin) -> dict[str, np.ndarray]:
    """Truth and untruth told `[kind test strength 2]`, perplexity `[kind strength]`, accuracies of layers."""
    begin("prompts")
    world = cfg.model.startswith("microworld")
    sides, tested = (of_world if world else of_questions)(cfg, tokenizer, seed)
    x = [read(cfg, model, *side) for side in sides]
    begin("autoencoders")
    options = {"d_hidden": cfg.d_hidden, "d_latent": cfg.d_latent, "n_steps": cfg.n_steps}
    swapped = np.random.default_rng(seed).random(len(x[0][SITES[0]][0])) < 0.5
    mixed = [{s: np.where(swapped[:, None], b[s], a[s]) for s in SITES} for a, b in (x, x[::-1])]
    both = {"truthx": x, "shuffled": mixed}
    made = {kind: truthx.train(jax.random.key(seed), *of, **options) for kind, of in both.items()}
    norms = [jnp.linalg.norm(made[kind].delta, axis=-1, keepdims=True) for kind in ("truthx", "shuffled")]
    made["shuffled"] = replace(made["shuffled"], delta=made["shuffled"].delta * norms[0] / norms[1])
    made["random"] = replace(made["truthx"], delta=steering.random(jax.random.key(seed), made["truthx"].delta))
    measure = doses.perplexity(model, doses.texts(cfg.model, tokenizer, cfg.n_texts, without=("sycophancy", "truth")))
    told, cost = [], []
    for kind in KINDS:
        begin(kind)
        edits = [made[kind].edits(s, n=cfg.n_layers) for s in cfg.strengths]
        told.append([[judge(model, prompts, one) for one in edits] for prompts in tested.values()])
        cost.append([measure(one) for one in edits])
    return {
        "told": np.array(told),
        "perplexity": np.array(cost),
        "accuracy": np.stack([made[kind].accuracy for kind in KINDS]),
    }


def draw(cfg: TruthX, tests: list[str], found: dict) -> go.Figure:
    drawn = [(0, j) for j in range(len(tests))] + [(i, 0) for i in range(1, len(KINDS))]  # the rest is in the table
    behaviours = {f"{tests[j]}, {KINDS[i]}": found["told"][:, i, j, :, 0] for i, j in drawn}
    costs = {kind: found["perplexity"][:, i] for i, kind in enumerate(KINDS)}
    return doses.draw(f"Truth told, {Path(cfg.model).name}", cfg.strengths, behaviours, costs)


def main(cfg: TruthX) -> dict[str, np.ndarray]:
    """What `study` finds, of each seed."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)  # compiles quicker
    tests = ["its user errs", "others err", "nobody errs"] if cfg.model.startswith("microworld") else ["answers"]
    found = runs.each(
        cfg.seeds,
        2 + len(KINDS),
        "truthx, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("truthx", cfg, {"tests": tests, **found}),
    )
    about = (
        f"{cfg.model}: truth / untruth told by strength, {cfg.n_layers} layers, seeds {list(cfg.seeds)}, mean ± spread"
    )
    rows, said, heads = [], [], [f"{strength:g}" for strength in cfg.strengths]
    for i, kind in enumerate(KINDS):
        for j, test in enumerate(tests):
            told = found["told"][:, i, j].swapaxes(0, 1)  # [strength seed 2]
            cells = [f"{runs.cell(at[:, 0])} / {at[:, 1].mean():.2f}" for at in told]
            rows.append({"": f"{test}, {kind}"} | dict(zip(heads, cells, strict=True)))
            said.append(f"{test}, {kind}: {doses.told(cfg.strengths, told[..., 0].T)}")
        costs = [runs.cell(at) for at in found["perplexity"][:, i].T]
        rows.append({"": f"perplexity, {kind}"} | dict(zip(heads, costs, strict=True)))
    best = np.sort(found["accuracy"], -1)[..., ::-1][..., : cfg.n_layers].mean(-1)  # [seed kind]
    story = (
        f"In the truthful space of the edited layers {runs.cell(best[:, 0])} of held-out values are nearer to their "
        f"own side's mean, with shuffled sides {runs.cell(best[:, 2])}. Truth told: {'; '.join(said)}."
    )
    numbers = {"tests": tests, "kinds": KINDS, **found}
    runs.finish("truthx", cfg, numbers, draw(cfg, tests, found), about, runs.table(rows), story)
    return found


if __name__ == "__main__":
    main(config.load(TruthX, "configs/truthx.toml"))
