"""The card of a model trained on the microworld: what it was asked, how well it answers, what it does not reach."""

from typing import Any

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
    "binding": "the objects in their order (one in ten), three boxes, one question",
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

## Training

`python experiments/train_microworld.py` with `configs/train_microworld.toml`, seed {seed}: {n_steps:,} steps of
{batch_size} rows of {n_positions} words, sentences one after the other in a row. Muon for the matrices, AdamW for
embeddings and norms, cosine schedule. The loss weighs the words that those before them determine by 1, the others by
{undetermined}: determined words are therefore too probable where another word could stand. Positions beyond
{n_positions} were never trained.
Shares of the phenomena: {mixture}.
The countries are real; the people and everything said of them are invented.
"""


def render(name: str, card: dict[str, Any]) -> str:
    """The card as a Markdown page.

    Args:
      name: of the model.
      card: what the training script measured: heldout and train accuracies, n_examples, eval_seed, n_parameters,
        config.
    """
    config, heldout = card["config"], card["heldout"]
    rows = [
        f"| {name} | {HELD_OUT[name]} | {accuracy:.1%} | {WANTED[name]:.0%} | {card['train'][name]:.1%} |"
        for name, accuracy in heldout.items()
    ]
    missed = [f"{name} ({heldout[name]:.1%} of {WANTED[name]:.0%})" for name in heldout if heldout[name] < WANTED[name]]
    mixture = ", ".join(f"{name} {share:g}" for name, share in config["mixture"].items())
    return TEMPLATE.format(
        **{**config, **config["model"], "mixture": mixture},
        **{key: card[key] for key in ("n_parameters", "n_examples", "eval_seed")},
        name=name,
        rows="\n".join(rows),
        missed=f"Not reached: {', '.join(missed)}." if missed else "All that was wanted is reached.",
    )
