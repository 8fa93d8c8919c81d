"""The card of a model that is trained on a world: how well it answers, what it does not reach, how it was trained."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from interp_jax.data import microworld, tasks
from interp_jax.data.prompts import correct, prompts
from interp_jax.data.world import World

WANTED = 0.95  # accuracy, where a world says nothing else
TEMPLATE = """---
license: apache-2.0
library_name: interp_jax
pipeline_tag: text-generation
---
# {name}

A decoder of the Llama architecture, {n_layers} layers, d_model {d_model}, {n_heads} heads, {n_parameters:,} parameters
in bfloat16, trained from scratch on the world `{world}` of interp_jax (`interp_jax.data.worlds`), a word-level language
of {d_vocab} words whose every sentence has known structure:
{about}.

It is a model organism for interpretability, not a language model of English: outside the world's sentences its output
means nothing.

Load it with `models.load("{name}")` or, so that it can never be another one, `models.load("{name}@{version}")`.

## Held-out accuracy

Greedy over the whole vocabulary, one answer an example, {n_examples:,} examples of each phenomenon, seed {eval_seed},
as shipped (bfloat16).
Splits hold out combinations, never words.

| phenomenon | held out | accuracy | wanted | accuracy on the train split |
|---|---|---|---|---|
{rows}

{missed}
{detail}
## Training

`python experiments/train_microworld.py {name}`, seed {seed}: {n_steps:,} steps of {batch_size} rows of
{n_positions} words, sentences one after the other in a row{alone}. Muon for the matrices, AdamW for
embeddings and norms, cosine schedule. The loss weighs the words that those before them determine by 1, the others by
{undetermined}: determined words are therefore too probable where another word could stand.
Shares of the phenomena: {mixture}.
"""


def accuracies(
    forward: Callable[..., jax.Array],
    model: Any,
    tokenizer: Any,
    *,
    n: int,
    seed: int,
    split: str = "heldout",
    world: str = "microworld",
) -> dict[str, float]:
    """How often the likeliest of all words is a right answer, by phenomenon.

    Args:
      forward, model: as `prompts.correct` takes them.
      tokenizer: of the model.
      n: examples of each phenomenon.
      seed: of the examples.
      split: "heldout" or "train".
      world: a name of `WORLDS`.

    Returns:
      phenomenon -> accuracy, from 0 to 1.
    """
    key = jax.random.key(seed)
    return {
        name: tasks.share_correct(forward, model, make(key, tokenizer, n, split=split))
        for name, make in tasks.OF_WORLD[world].items()
    }


def details(
    forward: Callable[..., jax.Array], model: Any, tokenizer: Any, *, n: int, seed: int, world: World
) -> dict[str, dict[str, dict[str, float]]]:
    """Held-out accuracy by the attributes that the world names: phenomenon -> attribute -> value -> accuracy.

    Examples are drawn as in training, with as many boxes, turns and so on; `accuracies` draws them as `tasks` does.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, attributes in world.details.items():
        task = prompts(jax.random.key(seed), tokenizer, n, partial(world.phenomena[name], split="heldout"), {})
        right = np.asarray(correct(forward, model, task))
        found[name] = {
            attribute: {str(value): float(right[told == value].mean()) for value in np.unique(told)}
            for attribute in attributes
            for told in [task.attributes[attribute]]
        }
    return found


def measure(
    forward: Callable[..., jax.Array], model: Any, tokenizer: Any, *, n: int, seed: int, world: World = microworld.WORLD
) -> dict[str, Any]:
    """All numbers of the card that are measured: accuracies by phenomenon and split, and by attribute.

    Args:
      forward, model, tokenizer, n, seed: as in `accuracies`.
      world: that the model has learned.
    """
    asked: dict[str, Any] = {"n": n, "seed": seed}
    return {
        "heldout": accuracies(forward, model, tokenizer, **asked, world=world.name),
        "train": accuracies(forward, model, tokenizer, **asked, world=world.name, split="train"),
        "details": details(forward, model, tokenizer, **asked, world=world),
        "n_examples": n,
        "eval_seed": seed,
    }


def render(name: str, card: dict[str, Any], world: World = microworld.WORLD) -> str:
    """The card as a Markdown page.

    Args:
      name: of the model.
      card: what `measure` gives, and n_parameters, version, and the config of the training script.
      world: that the model has learned.
    """
    config, heldout = card["config"], card["heldout"]
    wanted = {phenomenon: world.wanted.get(phenomenon, WANTED) for phenomenon in heldout}
    rows = [
        f"| {asked} | {world.heldout[asked]} | {reached:.1%} | {wanted[asked]:.0%} | {card['train'][asked]:.1%} |"
        for asked, reached in heldout.items()
    ]
    missed = [
        f"{asked} ({reached:.1%} of {wanted[asked]:.0%})"
        for asked, reached in heldout.items()
        if reached < wanted[asked]
    ]
    shares = ", ".join(f"{phenomenon} {share:g}" for phenomenon, share in world.mixture.items())
    return TEMPLATE.format(
        **{**config, **config["model"], "mixture": shares, "world": world.name},
        **{key: card[key] for key in ("n_parameters", "n_examples", "eval_seed")},
        about=world.about,
        alone=", each after its own <bos>" if world.alone else "",
        detail=_detail(card["details"]),
        rows="\n".join(rows),
        missed=f"Not reached: {', '.join(missed)}." if missed else "All that was wanted is reached.",
    )


def _detail(found: dict[str, dict[str, dict[str, float]]]) -> str:
    if not found:
        return ""
    rows = [
        f"| {name} | {attribute} | " + ", ".join(f"{value} {reached:.1%}" for value, reached in values.items()) + " |"
        for name, attributes in found.items()
        for attribute, values in attributes.items()
    ]
    return "\n".join(
        ["", "By attribute, as in training:", "", "| phenomenon | attribute | accuracy |", "|---|---|---|", *rows, ""]
    )
