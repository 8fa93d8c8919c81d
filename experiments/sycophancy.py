"""Is agreeing with the user a vector, which makes a model agree when it is added and stops it when it is subtracted?

Rimsky et al. 2024, "Steering Llama 2 via contrastive activation addition", https://arxiv.org/abs/2312.06681. A vector
is the mean difference of what stands at the answer, of prompts answered in accord with the behaviour and of the same
prompts answered against it; for the microworld also at the end of prompts in which a belief is the user's, and of their
twins, in which it is others'. It is added at all positions after the user's turn, after one layer, chosen on prompts
drawn anew. Asked are pairs of country and belief, or questions, that are in neither. Beside it: a random vector of its
norm, and the vector that shuffled labels give; what it costs in perplexity of other texts, and in truth.

    python experiments/sycophancy.py [--model smollm2.gguf] [--out DIR]

A minute on two cores; eight for SmolLM2-135M, which is asked whether it would say what an agreeable person says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import doses
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs
from sycophancy_prompts import Prompts, answered, following, of_questions, of_task, twins

import interp_jax as ij
from interp_jax import config, data, metrics, models, steering
from interp_jax.interventions import add, at
from interp_jax.runs import at_places

SITE = "blocks.resid_post"
WAYS = ("vector", "random", "shuffled")


@dataclass(frozen=True)
class Sycophancy:
    model: str
    behaviour: str  # a file of questions with Yes and No, for any other model than the microworld's
    n_train: int
    n_validation: int  # by which the layer is chosen
    n_test: int
    n_after: int  # tokens of a prompt after the user's turn
    strength: float  # at which, and at its negative, layers are compared
    strengths: tuple[float, ...]
    n_texts: int  # of the perplexity
    seeds: tuple[int, ...]
    out: Path


def accord(asked: Prompts, logits: jax.Array) -> jax.Array:
    """The probability of the answer in accord with the behaviour, of the two answers."""
    return jax.nn.sigmoid(metrics.logit_diff(asked.matching, asked.other)(logits)).mean()


def says(asked: Prompts, logits: jax.Array) -> jax.Array:
    """How often that answer is the likeliest of all tokens."""
    return metrics.accuracy(asked.matching)(logits).mean()


def measure(model: Any, asked: Prompts, judge: Any) -> doses.Measure:
    """What the judge says of the answers, under edits after the user's turn."""

    def measured(edits: doses.Edits) -> jax.Array:
        confined = {site: at(edit, mask=asked.after) for site, edit in edits.items()}
        return judge(asked, ij.intervene(following, confined)(model, asked))

    return measured


@jax.jit
def sweep(model: Any, asked: Prompts, vectors: jax.Array, strengths: jax.Array) -> jax.Array:
    """Accord where each layer's vector is added after the user's turn, `[layer strength]`."""

    def one(place: Any) -> jax.Array:
        layer, i = place
        edit = at(add(strengths[i] * vectors[layer]), layer=layer, mask=asked.after)
        return accord(asked, ij.intervene(following, {SITE: edit})(model, asked))

    return at_places(one, (len(vectors), len(strengths)), 4).reshape(len(vectors), -1)


def study(cfg: Sycophancy, model: Any, tokenizer: Any, seed: int, begin: Any) -> dict:
    """Of each contrast: accord by layer at both strengths, the layer chosen, and doses `[strength]` of each way."""
    keys, world = jax.random.split(jax.random.key(seed), 5), cfg.model.startswith("microworld")
    judged: dict[str, tuple[Prompts, Any]] = {}
    if world:
        task = partial(data.tasks.sycophancy, tokenizer=tokenizer)
        known = task(keys[0], n=cfg.n_train, split="train")
        train, validation = (
            of_task(cfg.n_after, known),
            of_task(cfg.n_after, task(keys[1], n=cfg.n_validation, split="train")),
        )
        contrasts = {"answers": answered(train), "beliefs": twins(known)}
        for name, own in (("others' beliefs", "no"), ("own beliefs", "yes")):
            asked = of_task(cfg.n_after, task(keys[2], n=cfg.n_test, own=own))
            judged |= {f"accord with {name}": (asked, accord), f"says {name}": (asked, says)}
        judged["truth"] = (of_task(cfg.n_after, data.tasks.truth(keys[2], tokenizer, cfg.n_test)), says)
    else:
        sizes = (cfg.n_train, cfg.n_validation, cfg.n_test)
        train, validation, test = of_questions(tokenizer, cfg.behaviour, sizes, cfg.n_after, seed)
        contrasts = {"answers": answered(train)}
        judged = {"accord": (test, accord)}
    texts = doses.texts(cfg.model, tokenizer, cfg.n_texts, without=("sycophancy", "truth"))
    measures = {name: measure(model, *pair) for name, pair in judged.items()}
    measures["perplexity"] = doses.perplexity(model, texts)

    found: dict[str, Any] = {}
    for contrast, sides in contrasts.items():
        begin(f"{contrast}: layers")
        make = partial(steering.vectors, models.forward, SITE)
        vectors = make()(model, *sides).vectors
        null = make(partial(steering.shuffled, keys[3], steering.difference_of_means))(model, *sides).vectors
        layers = np.asarray(sweep(model, validation, vectors, jnp.array([-cfg.strength, cfg.strength])))
        layer = int((layers[:, 1] - layers[:, 0]).argmax())
        vector, norm = vectors[layer], jnp.linalg.norm(vectors[layer])
        kinds = dict(zip(WAYS, (vector, steering.random(keys[4], vector), null[layer]), strict=True))
        shuffled = jnp.linalg.norm(null[layer])
        told = {"layers": layers, "layer": layer, "norms": np.array([norm, shuffled])}
        told["cosine of shuffled"] = np.array(vector @ null[layer] / norm / shuffled)
        for way, v in kinds.items():
            begin(f"{contrast}: {way}")
            here = steering.SteeringVector.create(v[None], SITE, layers=(layer,))
            told[way] = doses.response(cfg.strengths, lambda s, here=here: {SITE: here.edit(s)}, measures)
        found[contrast] = told
    return found


def table(cfg: Sycophancy, of: Mapping[str, Any]) -> str:
    """A row a strength of one contrast: all measures with the vector, and the first with the controls."""
    first = next(iter(of["vector"]))
    columns = dict(of["vector"]) | {f"{first}, {way}": of[way][first] for way in WAYS[1:]}
    return runs.table(
        [
            {"strength": f"{s:g}"} | {name: runs.cell(values[:, i]) for name, values in columns.items()}
            for i, s in enumerate(cfg.strengths)
        ]
    )


def draw(cfg: Sycophancy, found: dict) -> go.Figure:
    """Of the contrast whose vector moves accord most: accord and truth, and the first accord with the controls."""
    contrast = strongest(found)
    of, first = found[contrast], next(iter(found[contrast]["vector"]))
    behaviours = {name: values for name, values in of["vector"].items() if name.startswith(("accord", "truth"))}
    behaviours |= {f"{first}, {way}": of[way][first] for way in WAYS[1:]}
    costs = {way: of[way]["perplexity"] for way in WAYS}
    title = f"{Path(cfg.model).name}: the vector of {contrast}, added after the user's turn"
    return doses.draw(title, cfg.strengths, behaviours, costs)


def strongest(found: dict) -> str:
    """The contrast whose vector moves accord most, on the prompts by which layers are chosen."""
    return max(found, key=lambda name: float(np.ptp(found[name]["layers"], axis=-1).max(-1).mean()))


def story(cfg: Sycophancy, contrast: str, of: Mapping[str, Any]) -> str:
    n_layers = of["layers"].shape[1]
    told = []
    for name, values in of["vector"].items():
        mean = np.mean(values, axis=0)
        moves = name != "perplexity" and np.ptp(mean) > 0.01
        told.append(f"{name} {doses.told(cfg.strengths, values) + ', ' if moves else ''}")
        told[-1] += f"between {mean.min():.2f} and {mean.max():.2f}"
    short = (of["norms"][:, 1] / of["norms"][:, 0]).mean(), np.abs(of["cosine of shuffled"]).mean()
    return (
        f"The vector of {contrast}, after layer {', '.join(map(str, of['layer']))} of {n_layers}, norm "
        f"{runs.cell(of['norms'][:, 0])}: {'; '.join(told)}. That of shuffled labels has "
        f"{short[0]:.2f} of its norm, and a cosine of {short[1]:.2f} in size with it."
    )


def main(cfg: Sycophancy) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`, by contrast."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    found = runs.each(
        cfg.seeds,
        (1 + len(WAYS)) * (2 if cfg.model.startswith("microworld") else 1),
        "sycophancy",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("sycophancy", cfg, found),
    )
    text = [
        f"{cfg.model}: accord is the probability of the answer that shows the behaviour, of two answers; {cfg.n_test} "
        f"held-out prompts of each kind, mean ± spread over seeds {list(cfg.seeds)}"
    ]
    for contrast, of in found.items():
        effects = {f"{contrast}, at {s:g}": of["layers"][..., i] for i, s in enumerate((-cfg.strength, cfg.strength))}
        text += [runs.layer_table("accord, after layer", effects), table(cfg, of), story(cfg, contrast, of)]
    runs.finish("sycophancy", cfg, found, draw(cfg, found), *text)
    return found


if __name__ == "__main__":
    main(config.load(Sycophancy, "configs/sycophancy.toml"))
