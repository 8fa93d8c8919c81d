"""Which directions of a model's state hold the indirect object, and which its place? MIB's causal variables.

`when Mary and John went to the park , John gave a ring to` -> Mary. Two variables tell the answer: the name (output
token), and whether it is the first or the second that was said (output position). Mueller et al. 2025, "MIB"
(https://arxiv.org/abs/2504.13151), take what some features of a state hold from a run on another prompt, and ask
whether the model answers as if only the variable had changed. The other prompt has the same two names in the other
order, the other one gives, or both:

    in the other prompt    its answer   place    if tokens count, the answer should be   if positions count
    the order is other     the same     other    the same                                the other
    who gives is other     the other    other    the other                               the other
    both are               the other    same     the other                               the same

The share of swaps after which the likeliest word is that of the column is the interchange-intervention accuracy; to
leave the state as it is gets a third of either. The features, at a word and after a layer:

- the whole state
- DAS (Geiger et al. 2023, https://arxiv.org/abs/2303.02536): a rotated subspace that is learned from such swaps
- DBM: a learned choice of neurons, or of principal components
- unlearned: where the means of the variable's values differ, the first principal components, random directions

All are fitted to some pairs of names and judged on others. (MIB swaps single heads on IOI, and judges by the error of a
fitted logit difference; its other tasks are judged by accuracy at states, as here.)

    python experiments/ioi_das.py [--model SmolLM2.gguf] [--out DIR]

Three minutes on two cores, and some five of SmolLM2. It prints and draws the accuracies of each variable by word and
layer.
"""

from dataclasses import dataclass
from functools import partial
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from plotly.colors import qualitative
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import config, data, models, probes

WORDS = ("s2", "end")  # the second mention of who gives, and the last word
VARIABLES = ("token", "position")
LOSS = optax.softmax_cross_entropy_with_integer_labels


@dataclass(frozen=True)
class IOIDAS:
    model: str
    layers: tuple[int, ...]  # of resid_post
    n: int  # prompts to fit to, and as many to judge by
    n_directions: int  # of DAS and of the unlearned subspaces
    batch_size: int
    n_steps: int
    learning_rate: float  # of DAS
    masks: bool  # whether DBM is asked
    seeds: tuple[int, ...]
    out: Path


@dataclass(frozen=True)
class Prompts:
    """Prompts that a model answers right, with their three other prompts, and what both have at `WORDS`."""

    task: data.tasks.Task
    targets: dict[str, np.ndarray]  # variable -> [other prompt], the answer after a swap
    values: dict[str, np.ndarray]  # variable -> [other prompt], what it is in the other prompt
    states: np.ndarray  # [layer other prompt word d_model], of the other prompts

    def swaps(self, variable: str, at: tuple[int, int], rows: np.ndarray) -> probes.Interchange:
        """Swaps of what a word has after a layer: row `i` is other prompt `i // n` of prompt `i % n`."""
        task, (layer, word) = self.task, at
        other, prompt = np.divmod(rows, len(task.clean))
        kwargs = {"attention_mask": task.mask[prompt], "logits_at": task.last[prompt]}
        source, target = self.states[layer, other, prompt, word], self.targets[variable][other, prompt]
        return probes.Interchange(task.clean[prompt], task.positions[WORDS[word]][prompt], source, target, kwargs)


def pose(cfg: IOIDAS, model, tokenizer, seed: int, split: str) -> Prompts:
    task = data.tasks.ioi(jax.random.key(seed), tokenizer, n=cfg.n, split=split, template=0)
    rows, column = jnp.arange(cfg.n), task.columns

    def reordered(tokens: jax.Array) -> jax.Array:
        first, second = tokens[rows, column["io"]], tokens[rows, column["s1"]]
        return tokens.at[rows, column["io"]].set(second).at[rows, column["s1"]].set(first)

    at_words = jnp.stack([column[word] for word in WORDS], axis=1)
    read = ij.capture(models.forward, {"blocks.resid_post": lambda x: x[rows[:, None], at_words]})
    (same, other), states = (task.answers, task.distractors), []
    right = np.ones(cfg.n, bool)
    others = (reordered(task.clean), same), (task.corrupted, other), (reordered(task.corrupted), other)
    for tokens, answers in ((task.clean, same), *others):
        logits, found = read(model, tokens, attention_mask=task.mask, logits_at=task.last)
        right &= np.asarray(logits.argmax(-1) == answers)
        states.append(np.asarray(found["blocks.resid_post"]))
    if not right.any():
        raise SystemExit(f"ioi_das: {cfg.model} answers no prompt right in all four versions: take another model")
    place = np.where(task.attributes["order"] == "ABBA", 0, 1)
    targets = {"token": np.stack([same, other, other]), "position": np.stack([other, other, same])}
    values = {"token": targets["token"], "position": np.stack([1 - place, 1 - place, place])}
    kept = jax.tree.map(lambda x: x[right], task)
    targets, values = ({name: x[:, right] for name, x in some.items()} for some in (targets, values))
    return Prompts(kept, targets, values, np.stack(states[1:], axis=1)[:, :, right])


def features(cfg: IOIDAS, model, fitted: Prompts, variable: str, at: tuple[int, int], seed: int) -> dict:
    """method -> basis `[d_model k]` of what it would swap."""
    (layer, word), where, rng = at, f"blocks.{at[0]}.resid_post", np.random.default_rng(seed)
    states, key = fitted.states[layer, :, :, word], jax.random.key(seed)
    k, n, d_model = cfg.n_directions, *states.shape[1:]
    states, classes = states.reshape(-1, d_model), np.unique(fitted.values[variable].ravel(), return_inverse=True)[1]
    _, _, components = np.linalg.svd(states - states.mean(0), full_matrices=False)
    batches = [fitted.swaps(variable, at, rng.integers(3 * n, size=cfg.batch_size)) for _ in range(cfg.n_steps)]
    adam = optax.adam(cfg.learning_rate)
    found, _ = probes.train_das(key, models.forward, LOSS, where, model, batches, n_directions=k, optimizer=adam)
    spaces: dict = {"whole state": np.eye(d_model), "DAS": found}
    if cfg.masks:
        for name, basis in (("DBM, neurons", np.eye(d_model)), ("DBM, components", components.T)):
            kept, _ = probes.train_dbm(models.forward, LOSS, where, model, batches, jnp.asarray(basis, jnp.float32))
            spaces[name] = basis * np.asarray(kept)
    spaces["difference of means"] = probes.class_subspace(states, classes, n_directions=min(k, int(classes.max())))
    spaces["components"] = components[:k].T
    spaces["random"] = probes.orthonormal(jax.random.normal(key, (d_model, k)))
    return spaces


def study(cfg: IOIDAS, model, tokenizer, seed: int, begin) -> dict[str, dict]:
    """variable -> method -> accuracy `[layer word]`, and how many prompts are answered right."""
    fitted, judged = (pose(cfg, model, tokenizer, seed, split) for split in ("train", "heldout"))
    right = {"fitted": len(fitted.task.clean), "judged": len(judged.task.clean)}
    rows = np.arange(3 * right["judged"])
    told: dict = {variable: {} for variable in VARIABLES}
    for layer, variable in itertools.product(cfg.layers, VARIABLES):
        begin(f"layer {layer}, {variable}")
        run = probes.swapped(models.forward, f"blocks.{layer}.resid_post")
        for word in range(len(WORDS)):
            one = judged.swaps(variable, (layer, word), rows)
            for name, basis in features(cfg, model, fitted, variable, (layer, word), seed).items():
                filled = np.zeros((len(basis), len(basis)), np.float32)  # of one shape, for one compilation
                filled[:, : basis.shape[1]] = basis
                hits = np.asarray(run(model, jnp.asarray(filled), one)).argmax(-1) == one.target
                told[variable].setdefault(name, []).append(hits.mean())
    shape = len(cfg.layers), len(WORDS)
    scores = {variable: {name: np.reshape(x, shape) for name, x in found.items()} for variable, found in told.items()}
    return scores | {"right": right}


def draw(cfg: IOIDAS, found: dict) -> go.Figure:
    """Accuracy by layer, a row of panels for each variable, a column for each word."""
    panels = list(itertools.product(VARIABLES, WORDS))
    titles = [f"output {variable}, at {word}" for variable, word in panels]
    figure = make_subplots(len(VARIABLES), len(WORDS), subplot_titles=titles, shared_xaxes=True, shared_yaxes=True)
    colors = dict(zip(found[VARIABLES[0]], qualitative.Plotly, strict=False))
    for i, (variable, word) in enumerate(panels):
        place = {"row": 1 + i // len(WORDS), "col": 1 + i % len(WORDS)}
        for name, scores in found[variable].items():
            look = {"name": name, "legendgroup": name, "showlegend": i == 0, "line": {"color": colors[name]}}
            runs.curve(figure, scores[:, :, WORDS.index(word)], x=cfg.layers, mode="lines+markers", **look, **place)
    figure.update_xaxes(title="after layer", dtick=1 if len(cfg.layers) > 3 else None, row=len(VARIABLES))
    figure.update_yaxes(title="accuracy", range=[-0.05, 1.05], col=1)
    return figure.update_layout(title=f"Interchange-intervention accuracy, {cfg.model}")


def main(cfg: IOIDAS) -> dict:
    """As `study`, each number with the seed as its first axis."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    keep = partial(runs.write, "ioi_das", cfg)
    n_steps = len(cfg.layers) * len(VARIABLES)
    found = runs.each(cfg.seeds, n_steps, "ioi_das, seed", partial(study, cfg, model, tokenizer), keep)
    about = (
        f"{cfg.model}: share of swaps after which the answer is as the variable has it. Of {cfg.n} prompts to fit to "
        f"and {cfg.n} with other pairs of names, those answered right: {runs.cell(found['right']['fitted'], 0)} "
        f"and {runs.cell(found['right']['judged'], 0)}. {cfg.n_directions} directions of DAS and the unlearned, seeds "
        f"{list(cfg.seeds)}, mean ± spread. Columns: the word, and after which layer. Doing nothing gets 0.33."
    )
    text = [about]
    for variable in VARIABLES:
        rows = [
            {f"output {variable}": name}
            | {
                f"{word} {layer}": runs.cell(scores[:, i, j])
                for j, word in enumerate(WORDS)
                for i, layer in enumerate(cfg.layers)
            }
            for name, scores in found[variable].items()
        ]
        text.append(runs.table(rows))
    runs.finish("ioi_das", cfg, found, draw(cfg, found), *text)
    return found


if __name__ == "__main__":
    main(config.load(IOIDAS, "configs/ioi_das.toml"))
