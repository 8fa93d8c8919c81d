"""The card of a model trained on the microworld: what it was asked, how well it answers, what it does not reach."""

from collections.abc import Callable
from typing import Any

import jax

from interp_jax.data import lexicon, tasks

WANTED = {
    "ioi": 0.97,
    "facts": 0.97,
    "agreement": 0.97,
    "sentiment": 0.97,
    "opposites": 0.97,
    "binding": 0.95,
    "repeated": 0.90,
}
HELD_OUT = {
    "ioi": "pairs of names in a template (one in ten), ABBA and BABA",
    "facts": "for every fact, one of its four phrasings",
    "agreement": "pairs of subject and first distractor (one in ten); half of the distractors have the other number",
    "sentiment": "pairs of adjectives (one in ten), some negated",
    "opposites": "for every word, one of the four phrasings in its own language",
    "binding": "the objects in their order (one in ten), three boxes, one question, all wordings",
    "repeated": "the sequence (one in ten); a random word of the second half",
}
TEMPLATE = """---
license: apache-2.0
library_name: interp_jax
pipeline_tag: text-generation
---
# {name}

A decoder of the Llama architecture, {n_layers} layers, d_model {d_model}, {n_heads} heads, {n_parameters:,} parameters
in bfloat16, trained from scratch on the first microworld of interp_jax (`interp_jax.data.microworld`): a word-level
language of {d_vocab} words whose every sentence has known structure. It is a model organism for interpretability, not a
language model of English: outside the microworld's sentences its output means nothing.

## Held-out accuracy

Greedy over the whole vocabulary, one answer an example, {n_examples:,} examples of each phenomenon, seed {eval_seed},
as shipped (bfloat16).
Splits hold out combinations, never words.

| phenomenon | held out | accuracy | wanted | accuracy on the train split |
|---|---|---|---|---|
{rows}

{missed}

Binding by the number of boxes and the wording of the sentence:

{binding}

## Training

`python experiments/train_microworld.py` with `configs/train_microworld.toml`, seed {seed}: {n_steps:,} steps of
{batch_size} rows of {n_positions} words, sentences one after the other in a row. Muon for the matrices, AdamW for
embeddings and norms, cosine schedule. The loss weighs the words that those before them determine by 1, the others by
{undetermined}: determined words are therefore too probable where another word could stand.
Shares of the phenomena: {mixture}.
The countries are real; the people and everything said of them are invented.
"""


def accuracies(
    forward: Callable[..., jax.Array], model: Any, tokenizer: Any, *, n: int, seed: int, split: str = "heldout"
) -> dict[str, float]:
    """Greedy accuracy over the whole vocabulary by phenomenon, on n examples of each; arguments as in `tasks`."""
    key = jax.random.key(seed)
    return {
        name: tasks.accuracy(forward, model, make(key, tokenizer, n, split=split)) for name, make in tasks.TASKS.items()
    }


def measure(forward: Callable[..., jax.Array], model: Any, tokenizer: Any, *, n: int, seed: int) -> dict[str, Any]:
    """Everything measured that the card tells: accuracies by phenomenon and split, and binding in detail."""

    def binding(n_boxes: int, clause: int) -> float:
        task = tasks.binding(jax.random.key(seed), tokenizer, n, n_boxes=n_boxes, clause=clause)
        return tasks.accuracy(forward, model, task)

    clauses = {text: index for index, text in enumerate(lexicon.BINDING_CLAUSES)}
    return {
        "heldout": accuracies(forward, model, tokenizer, n=n, seed=seed),
        "train": accuracies(forward, model, tokenizer, n=n, seed=seed, split="train"),
        "binding": {text: {str(boxes): binding(boxes, clauses[text]) for boxes in (2, 3, 4, 5)} for text in clauses},
        "n_examples": n,
        "eval_seed": seed,
    }


def render(name: str, card: dict[str, Any]) -> str:
    """The card as a Markdown page.

    Args:
      name: of the model.
      card: what `measure` gives, with n_parameters and the config of the training script.
    """
    config, heldout = card["config"], card["heldout"]
    rows = [
        f"| {name} | {HELD_OUT[name]} | {accuracy:.1%} | {WANTED[name]:.0%} | {card['train'][name]:.1%} |"
        for name, accuracy in heldout.items()
    ]
    missed = [f"{name} ({heldout[name]:.1%} of {WANTED[name]:.0%})" for name in heldout if heldout[name] < WANTED[name]]
    detail = ["| wording | 2 boxes | 3 boxes | 4 boxes | 5 boxes |", "|---|---|---|---|---|"]
    for wording, by_boxes in card["binding"].items():
        detail.append(f"| {wording} | " + " | ".join(f"{accuracy:.1%}" for accuracy in by_boxes.values()) + " |")
    mixture = ", ".join(f"{name} {share:g}" for name, share in config["mixture"].items())
    return TEMPLATE.format(
        **{**config, **config["model"], "mixture": mixture},
        **{key: card[key] for key in ("n_parameters", "n_examples", "eval_seed")},
        name=name,
        binding="\n".join(detail),
        rows="\n".join(rows),
        missed=f"Not reached: {', '.join(missed)}." if missed else "All that was wanted is reached.",
    )
