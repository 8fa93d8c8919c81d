"""Does a subspace hold one attribute of an entity and no other? Cause and isolate, as in RAVEL.

Of an entity, a country, a model knows several attributes. A subspace of the state at its last word is taken from a run
on another entity: the answer about the attribute should become the other's (cause), and answers about the other
attributes should stay (isolate). Huang et al. 2024, https://arxiv.org/abs/2402.17700. Subspaces come from distributed
alignment search, trained to do both on some entities, from the difference of means, and from chance; the whole state is
swapped beside them. They are judged on pairs of entities that are not in training.

    python experiments/ravel.py [--model SmolLM2.gguf] [--out DIR]

Two minutes on two cores, and ten on SmolLM2. Only facts that the model knows count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plotly.graph_objects as go
import ravel_facts
import runs

import interp_jax as ij
from interp_jax import config, models, probes


@dataclass(frozen=True)
class Ravel:
    model: str
    layers: tuple[int, ...]  # of resid_post
    attribute: str  # the one to move; the others are to stay
    n_directions: int
    batch_size: int
    n_steps: int
    learning_rate: float
    n_test: int  # pairs a question
    seeds: tuple[int, ...]
    out: Path


Make = Callable[[np.random.Generator, int, bool, bool], probes.Interchange]


def pairs(cfg: Ravel, known: ravel_facts.Facts, values: np.ndarray) -> Make:
    """(rng, n, of held-out entities, about the attribute) -> swaps between entities that differ in what is asked."""
    inside = known.held_out
    moved = known.relations == cfg.attribute

    def candidates(held_out: bool, cause: bool) -> np.ndarray:
        """(base, source, the source's answer to the base's question), of those that differ from the base's own."""
        bases = np.flatnonzero((inside == held_out) & (moved == cause))
        sources = np.flatnonzero(inside == held_out)
        told = [(i, j, known.answer(known.entities[j], known.relations[i])) for i in bases for j in sources]
        found = [pair for pair in told if pair[2] is not None and pair[2] != known.answers[pair[0]]]
        if not found:
            which = "held-out" if held_out else "other"
            raise ValueError(
                f"--attribute {cfg.attribute}: the model knows no two {which} entities that differ; take another"
            )
        return np.array(found)

    every = {which: candidates(*which) for which in itertools.product((True, False), repeat=2)}

    def make(rng: np.random.Generator, n: int, held_out: bool, cause: bool) -> probes.Interchange:
        base, source, theirs = rng.choice(every[held_out, cause], n).T
        target = theirs if cause else known.answers[base]
        task = known.prompts
        kwargs = {"attention_mask": task.mask[base], "logits_at": task.last[base]}
        return probes.Interchange(task.tokens[base], task.position[base], values[source], target, kwargs)

    return make


def loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, target)


def mixed(make: Make, rng: np.random.Generator, n: int) -> probes.Interchange:
    parts = [make(rng, n // 2, False, cause) for cause in (True, False)]
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def of_layer(cfg: Ravel, model, known: ravel_facts.Facts, layer: int, values: np.ndarray, seed: int) -> dict:
    """featuriser -> `[held out or seen entities, cause or isolate]`, on pairs that were drawn anew."""
    where, rng = f"blocks.{layer}.resid_post", np.random.default_rng(seed)
    make = pairs(cfg, known, values)
    d_in, key = values.shape[-1], jax.random.key(seed)
    batches = (mixed(make, rng, cfg.batch_size) for _ in range(cfg.n_steps))
    search = partial(probes.train_das, n_directions=cfg.n_directions, optimizer=optax.adam(cfg.learning_rate))
    basis, _ = search(key, models.forward, loss, where, model, batches)
    asked = np.array([known.answer(entity, cfg.attribute) is not None for entity in known.entities])
    seen = asked & ~known.held_out
    answers = [known.answer(entity, cfg.attribute) for entity in known.entities[seen]]
    _, classes = np.unique(answers, return_inverse=True)
    k = min(cfg.n_directions, classes.max())
    spaces = {
        "DAS": basis,
        "difference of means": probes.class_subspace(jnp.asarray(values[seen]), classes, n_directions=int(k)),
        "random": probes.orthonormal(jax.random.normal(key, (d_in, cfg.n_directions))),
        "whole state": jnp.eye(d_in),
    }
    run = jax.jit(probes.swapped(models.forward, where))
    rng = np.random.default_rng(100 + seed)
    tests = [[make(rng, cfg.n_test, held_out, cause) for cause in (True, False)] for held_out in (True, False)]

    def right(space: jax.Array, one: probes.Interchange) -> float:
        return float((np.asarray(run(model, space, one)).argmax(-1) == one.target).mean())

    return {name: np.array([[right(space, one) for one in two] for two in tests]) for name, space in spaces.items()}


def draw(cfg: Ravel, found: dict) -> go.Figure:
    figure = go.Figure(layout={"title": f"RAVEL: {cfg.attribute} at the entity's last word, {cfg.model}"})
    for name, scores in found.items():
        for i, (kind, dash) in enumerate((("cause", "solid"), ("isolate", "dot"))):
            runs.curve(figure, scores[:, :, 0, i], x=cfg.layers, name=f"{name}, {kind}", line={"dash": dash})
    return figure.update_layout(xaxis_title="after layer", yaxis_title="share of answers as wanted")


def main(cfg: Ravel) -> dict[str, np.ndarray]:
    """featuriser -> `[seed layer (held out, seen) (cause, isolate)]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    known = ravel_facts.known(model, tokenizer, cfg.attribute)
    task = known.prompts
    rows = jnp.arange(len(task.tokens))
    read = ij.capture(models.forward, {"blocks.resid_post": lambda x: x[rows, task.column]}, output=False)
    states = np.asarray(
        read(model, task.tokens, attention_mask=task.mask)["blocks.resid_post"]
    )  # [layer prompt d_model]

    def study(seed: int, begin) -> dict:
        found: dict = {}
        for layer in cfg.layers:
            begin(f"layer {layer}")
            for name, scores in of_layer(cfg, model, known, layer, states[layer], seed).items():
                found.setdefault(name, []).append(scores)
        return {name: np.stack(scores) for name, scores in found.items()}

    def keep(found: dict) -> None:
        runs.write("ravel", cfg, found)

    found = runs.each(cfg.seeds, len(cfg.layers), "subspaces, seed", study, keep)
    rows_of = [
        {"after layer": layer, "subspace": name}
        | {kind: runs.cell(scores[:, at, 0, i]) for i, kind in enumerate(("cause", "isolate"))}
        | {"both": runs.cell(scores[:, at, 0].mean(-1)), "both, seen entities": runs.cell(scores[:, at, 1].mean(-1))}
        for at, layer in enumerate(cfg.layers)
        for name, scores in found.items()
    ]
    about = (
        f"{cfg.model}: {known.told()}; {cfg.attribute} is to move, in {cfg.n_directions} directions; {cfg.n_test} "
        f"pairs of held-out entities a score, seeds {list(cfg.seeds)}, mean ± spread"
    )
    runs.finish("ravel", cfg, found, draw(cfg, found), about, runs.table(rows_of), story(cfg, found))
    return found


def story(cfg: Ravel, found: dict) -> str:
    best = {name: scores[:, :, 0].mean((0, 2)) for name, scores in found.items()}
    parts = [f"{name} {values.max():.2f} (layer {cfg.layers[int(values.argmax())]})" for name, values in best.items()]
    return f"Mean of cause and isolate at the best layer of each: {', '.join(parts)}; 0.5 is what doing nothing gets."


if __name__ == "__main__":
    main(config.load(Ravel, "configs/ravel.toml"))
