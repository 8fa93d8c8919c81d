"""Is a task that only examples tell carried by a vector, which makes the model do it without them?

Todd et al. 2024, "Function vectors in large language models", https://arxiv.org/abs/2310.15213. Of prompts that show a
task, the mean output of each head at the last token is put into prompts whose labels are shuffled: the heads that bring
the answer back are summed to a vector, which is added at the last token of prompts that show nothing, or shuffled
labels. Words asked there are in no prompt that the vector was made of. Beside it: as many heads drawn at random, a
random vector of its norm, the vector of prompts with shuffled labels, and that of another task.

    python experiments/function_vectors.py [--model smollm2.gguf] [--out DIR]

A minute on two cores; a quarter of an hour for SmolLM2-135M.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import doses
import function_tasks as ft
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import config, metrics, models, steering

SITE = "blocks.resid_post"
KNOWN, SHUFFLED = "function vector, words that made it", "function vector, shuffled prompts"
CONTROLS = ("random heads", "random vector", "shuffled labels", "another task's")


@dataclass(frozen=True)
class Functions:
    model: str
    tasks: tuple[str, ...]
    n_shown: int  # examples of a prompt
    n_means: int  # prompts of which means are made, at most as many as there are pairs
    n_effects: int  # prompts in which heads are tried
    n_test: int  # pairs held out
    n_heads: int  # of a vector
    strengths: tuple[float, ...]
    n_texts: int  # of the perplexity
    seeds: tuple[int, ...]
    out: Path


def accuracy(model: Any, asked: ft.Prompts, edits: doses.Edits) -> float:
    """How often the likeliest of all tokens is the answer."""
    f = partial(models.forward, attention_mask=asked.mask, logits_at=asked.last)
    logits = ij.intervene(f, edits)(model, asked.tokens)
    return float(metrics.accuracy(asked.answers)(logits).mean())


def by_layer(model: Any, asked: ft.Prompts, vector: jax.Array) -> np.ndarray:
    """Accuracy where the vector is added at the last token after each layer in turn, `[layer]`."""
    f = partial(models.forward, attention_mask=asked.mask, logits_at=asked.last)
    stack = steering.SteeringVector.create(jnp.tile(vector, (model.config.n_layers, 1)), SITE)
    sweep = steering.sweep(f, metrics.accuracy(asked.answers), stack, [1.0], position=asked.end)
    return np.asarray(sweep(model, asked.tokens))[:, 0]


def means(model: Any, asked: ft.Prompts, only: bool) -> jax.Array:
    """Mean outputs of heads, of the prompts that are answered rightly if there are any and `only` says so."""
    if only:
        f = partial(models.forward, attention_mask=asked.mask, logits_at=asked.last)
        right = np.flatnonzero(metrics.accuracy(asked.answers)(f(model, asked.tokens)))
        asked = asked.rows(right) if len(right) else asked
    return steering.head_means(models.forward, asked.end)(model, asked.tokens, attention_mask=asked.mask)


def study(cfg: Functions, model: Any, tokenizer: Any, pairs: dict[str, ft.Pairs], seed: int, begin: Any) -> dict:
    """Effects `[task layer head]`, accuracies by layer `[task layer]` under a name each, and without `[task]`."""
    rng, world = np.random.default_rng(seed), cfg.model.startswith("microworld")
    make = partial(ft.prompts, tokenizer, rng, world=world)
    W_O = models.weights(model)["W_O"]
    made: dict[str, Any] = {name: [] for name in ("means", "null", "effects", "known", "zero", "shuffled")}
    for task, all_pairs in pairs.items():
        begin(f"{task}: heads")
        train, test = ft.split(all_pairs, rng, cfg.n_test)
        asked = [train[i] for i in rng.permutation(len(train))[: cfg.n_means]]
        made["means"].append(means(model, make(asked, train, cfg.n_shown), only=True))
        made["null"].append(means(model, make(asked, train, cfg.n_shown, shuffled=True), only=False))
        tried = make(asked[: cfg.n_effects], train, cfg.n_shown, shuffled=True)
        f = partial(models.forward, attention_mask=tried.mask, logits_at=tried.last)
        effects = steering.head_effects(f, metrics.prob(tried.answers), made["means"][-1], tried.end)
        made["effects"].append(np.asarray(effects(model, tried.tokens)))
        made["known"].append(make(asked, train, 0))
        made["zero"].append(make(test, train, 0))
        made["shuffled"].append(make(test, train, cfg.n_shown, shuffled=True))
    effects = jnp.asarray(np.mean(made["effects"], axis=0))  # one choice of heads for all tasks
    drawn = jax.random.uniform(jax.random.key(seed), effects.shape)
    found: dict[str, Any] = {"effects": np.stack(made["effects"]), "layers": {}, "without": {}}
    vectors = [steering.function_vector(m, effects, W_O, cfg.n_heads) for m in made["means"]]
    for name in ("zero", "shuffled"):
        found["without"][name] = np.array([accuracy(model, asked, {}) for asked in made[name]])
    controls = (
        [steering.function_vector(m, drawn, W_O, cfg.n_heads) for m in made["means"]],
        [steering.random(jax.random.key(seed), v) for v in vectors],
        [steering.function_vector(m, effects, W_O, cfg.n_heads) for m in made["null"]],
        vectors[1:] + vectors[:1],
    )
    kinds = {"function vector": vectors} | dict(zip(CONTROLS, controls, strict=True))
    for kind, each in kinds.items():
        begin(kind)
        found["layers"][kind] = np.stack([by_layer(model, a, v) for a, v in zip(made["zero"], each, strict=True)])
    for name, of in (("known", KNOWN), ("shuffled", SHUFFLED)):
        begin(of)
        found["layers"][of] = np.stack([by_layer(model, a, v) for a, v in zip(made[name], vectors, strict=True)])
    begin("doses")
    layer = model.config.n_layers // 3
    texts = doses.texts(cfg.model, tokenizer, cfg.n_texts)
    responses = []
    for asked, vector in zip(made["zero"], vectors, strict=True):
        here = steering.SteeringVector.create(vector[None], SITE, layers=(layer,))
        at_last = lambda s, here=here, asked=asked: {SITE: here.edit(s, position=asked.end)}  # noqa: E731
        last = doses.response(cfg.strengths, at_last, {"accuracy": partial(accuracy, model, asked)})
        cost = doses.response(
            cfg.strengths, lambda s, here=here: {SITE: here.edit(s)}, {"": doses.perplexity(model, texts)}
        )
        responses.append(np.stack([last["accuracy"], cost[""]]))
    return found | {"doses": np.mean(responses, axis=0)}


def chosen(found: dict) -> int:
    """The layer at which the vector does best on words that it was made of, over tasks and seeds."""
    return int(found["layers"][KNOWN].mean((0, 1)).argmax())


def table(cfg: Functions, found: dict) -> str:
    """A row a task: without and with the vector at the chosen layer, controls there, and under shuffled labels."""
    here, rows = {kind: values[..., chosen(found)] for kind, values in found["layers"].items()}, []
    columns = {"nothing shown": found["without"]["zero"], "+ vector": here["function vector"]}
    columns |= {kind: here[kind] for kind in CONTROLS}
    columns |= {"shuffled": found["without"]["shuffled"], "+ its vector": here[SHUFFLED]}
    for i, task in enumerate(cfg.tasks):
        rows.append({"task": task} | {name: runs.cell(values[:, i]) for name, values in columns.items()})
    rows.append({"task": "mean"} | {name: runs.cell(values.mean(1)) for name, values in columns.items()})
    return runs.table(rows)


def draw(cfg: Functions, found: dict) -> go.Figure:
    titles = ("effect of each head, in probability of the answer", "accuracy by layer of the vector")
    figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.15)
    effects = found["effects"].mean((0, 1))
    bar = {"x": 0.43, "thickness": 12}
    figure.add_heatmap(z=effects, colorscale="RdBu", zmid=0, colorbar=bar, row=1, col=1)
    for kind, values in found["layers"].items():
        figure.add_scatter(
            y=values.mean((0, 1)), error_y={"array": runs.spread(values.mean(1))}, name=kind, row=1, col=2
        )
    figure.update_xaxes(title_text="head", col=1).update_yaxes(title_text="layer", dtick=1, col=1)
    figure.update_xaxes(title_text="added after layer", col=2)
    title = f"Function vectors of {Path(cfg.model).name}, mean over {len(cfg.tasks)} tasks"
    return figure.update_layout(title=title, legend={"orientation": "h", "y": -0.2})


def story(cfg: Functions, found: dict) -> str:
    layer, n_heads = chosen(found), found["effects"].shape[-1]
    third = found["layers"]["function vector"].shape[-1] // 3
    order = np.argsort(-found["effects"].mean((0, 1)).ravel())[: cfg.n_heads]
    heads = ", ".join(f"{i // n_heads}.{i % n_heads}" for i in order)
    at_layer = {k: runs.cell(found["layers"]["function vector"].mean(1)[:, k]) for k in (layer, third)}
    dose, cost = np.array(found["doses"]).transpose(1, 0, 2)
    costs = "; ".join(f"{s:g}: {p:.2f}" for s, p in zip(cfg.strengths, cost.mean(0), strict=True))
    return (
        f"Heads of the largest effects: {heads}. With nothing shown {runs.cell(found['without']['zero'].mean(1))} are "
        f"answered; with the vector after layer {layer}, chosen on words that it was made of, {at_layer[layer]}; after "
        f"layer {third}, a third of the way, {at_layer[third]}, where accuracy {doses.told(cfg.strengths, dose)}. "
        f"Perplexity of other texts with the vector there at every token, by strength: {costs}."
    )


def main(cfg: Functions) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    world = cfg.model.startswith("microworld")
    pairs, left = ft.tasks(tokenizer, cfg.tasks, world, 3 * (cfg.n_shown + 1))
    found = runs.each(
        cfg.seeds,
        len(pairs) + 8,  # vectors of five kinds, two more sets of words, doses
        "function vectors",
        lambda seed, begin: study(cfg, model, tokenizer, pairs, seed, begin),
        lambda found: runs.write("function_vectors", cfg, found),
    )
    about = (
        f"{cfg.model}: accuracy on words that the vector was not made of; {cfg.n_heads} heads, mean ± spread over "
        f"seeds {list(cfg.seeds)}. {left}"
    )
    found["layer"] = chosen(found)
    runs.finish("function_vectors", cfg, found, draw(cfg, found), about, table(cfg, found), story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Functions, "configs/function_vectors.toml"))
