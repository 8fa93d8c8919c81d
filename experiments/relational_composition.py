"""In what form does a model hold who has what: a sum at one token, a product, or marks at several tokens?

A pair's activations are moved, token by token, from one context to another (`geometry.composition`). On four models
whose memory is known, because it is written by hand (`relational_models.py`), the tests say what is there; then they
are asked of a trained model, for each slot of its contexts. Wattenberg & Viégas 2024, "Relational Composition in Neural
Networks: A Survey and Call to Action", https://arxiv.org/abs/2407.14662, name the forms.

    python experiments/relational_composition.py [--model microworld] [--out DIR]

One minute on two cores. It prints what moves with the token of the attribute, and the verdict, mean and spread over
seeds of the contexts.
"""

from dataclasses import dataclass
from pathlib import Path

import binding_contexts
import jax
import numpy as np
import plotly.graph_objects as go
import relational_models as planted
import runs

from interp_jax import config, geometry, models
from interp_jax.data.bindings import Contexts

SITE = "blocks.resid_pre"
SINGLE = ("entity", "attribute", "rest", "later")
TOGETHER = ("clause", "context")
TESTS = {
    "carries": "brings its owner",
    "keeps_owner": "comes to the old owner",
    "guessed": "guessed",
    "adds": "a sum",
    "multiplies": "a product",
}


@dataclass(frozen=True)
class Compose:
    model: str
    n: int  # contexts of a seed and slot
    n_pairs: int
    seeds: tuple[int, ...]
    out: Path


def shares(forward, model, contexts: Contexts) -> tuple[dict[str, np.ndarray], geometry.Verdict]:
    """Of each place the shares of all tests `[test]`, the intact answer first; and the verdict."""
    places = {name: contexts.mask(name) for name in (*SINGLE, *TOGETHER)}
    places = {name: mask for name, mask in places.items() if mask.any()}  # nothing is later than the last clause
    g = geometry.composition(forward, geometry.option_log_probs(contexts.options()), SITE)
    found = g(model, contexts.crossed(), places, contexts.mask("context"))
    single = [name for name in SINGLE if name in places]
    told = {name: np.array([float(share.mean()) for share in one]) for name, one in found.items()}
    missing = {name: np.full(1 + len(TESTS), np.nan) for name in SINGLE if name not in places}
    return told | missing, geometry.composition_form(found, single)


def study(cfg: Compose, model, tokenizer, seed: int, begin) -> dict[str, dict]:
    """By subject: its shares by place, and its verdict as text."""
    found = {}
    for kind in planted.FORMS:
        begin(kind)
        made = planted.create(jax.random.key(seed), kind)
        found[kind] = shares(planted.forward, made, planted.contexts(jax.random.key(seed), 64))
    for slot in range(cfg.n_pairs):
        begin(f"slot {slot}")
        contexts = binding_contexts.make(cfg.model, jax.random.key(seed), tokenizer, cfg.n, cfg.n_pairs, slot)
        found[f"slot {slot}"] = shares(binding_contexts.answer_logits, model, contexts)
    return {name: {"shares": told, "verdict": np.array(verdict)} for name, (told, verdict) in found.items()}


def row(name: str, subject: dict) -> dict[str, str]:
    at = np.transpose(subject["shares"]["attribute"])  # [test seed]
    cells = {title: runs.cell(values) for title, values in zip(("answers", *TESTS.values()), at, strict=True)}
    forms, counts = np.unique([form for form, _ in subject["verdict"]], return_counts=True)
    told = ", ".join(f"{form} {count} of {counts.sum()}" for form, count in zip(forms, counts, strict=True))
    return {"subject": name} | cells | {"verdict, of seeds": told}


def story(cfg: Compose, found: dict[str, dict]) -> str:
    right = sum(
        int((subject["verdict"][:, 0] == planted.FORMS[name]).sum())
        for name, subject in found.items()
        if name in planted.FORMS
    )
    total = len(planted.FORMS) * len(cfg.seeds)
    slots = {name: subject["verdict"] for name, subject in found.items() if name not in planted.FORMS}
    told = "; ".join(
        f"{name} {' / '.join(sorted({f'{f} ({p})' if p else f for f, p in v}))}" for name, v in slots.items()
    )
    return (
        f"The planted memories are told right in {right} of {total} runs. {cfg.model}: {told}. A share near "
        "what is guessed says nothing: where an unknown owner is answered with the moved attribute, no test can tell."
    )


def draw(cfg: Compose, found: dict[str, dict]) -> go.Figure:
    figure = go.Figure(layout={"title": f"What moves with the attribute's token: planted memories, and {cfg.model}"})
    names = [name if name in planted.FORMS else f"{Path(cfg.model).stem}, {name}" for name in found]
    for i, title in enumerate(TESTS.values(), start=1):
        at = np.stack([subject["shares"]["attribute"][:, i] for subject in found.values()], axis=1)
        figure.add_bar(x=names, y=at.mean(0), error_y={"array": runs.spread(at)}, name=title)
    return figure.update_layout(yaxis_title="share of contexts", barmode="group")


def main(cfg: Compose) -> dict[str, dict]:
    """By subject, planted models and slots of the trained one: shares `[seed test]` by place, verdicts `[seed 2]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)
    found = runs.each(
        cfg.seeds,
        len(planted.FORMS) + cfg.n_pairs,
        "composition, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("relational_composition", cfg, found),
    )
    about = (
        f"{cfg.model}: {cfg.n} contexts of {cfg.n_pairs} pairs a seed and slot, seeds {list(cfg.seeds)}. Shares of "
        "answers after the attribute's token has come from another context; the verdict is of all places"
    )
    table = runs.table([row(name, subject) for name, subject in found.items()])
    runs.finish("relational_composition", cfg, found, draw(cfg, found), about, table, story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Compose, "configs/relational_composition.toml"))
