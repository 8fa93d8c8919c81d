"""Are entities and attributes bound by a mark of their own, which can be moved, exchanged and added?

Three edits of a context's activations (Feng & Steinhardt 2023, https://arxiv.org/abs/2310.17191), and what the binding
ID hypothesis says of each. Interchange: another context's attribute in the place of one belongs to the same entity.
Exchange: two entities, or two attributes, that take each other's place keep their partners. Shift: the mean difference
of two slots, added at one and taken from the other, exchanges the answers; at entities and attributes at once it
changes nothing, and nor does a random vector of the same length. A model with binding IDs, written by hand, stands
beside the trained one.

    python experiments/binding.py [--model microworld] [--out DIR]

One minute on two cores. It prints the share of the predicted answer after each edit, and of what was answered, mean and
spread over seeds of the contexts.
"""

from dataclasses import dataclass
from pathlib import Path

import binding_contexts
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import relational_models as planted
import runs

from interp_jax import config, geometry, models
from interp_jax.data.bindings import Contexts

SITE = "blocks.resid_pre"
OWN, SPARE, OTHER = range(3)  # of the answers: the asked slot's, the one from another context, the second slot's
PREDICTED = {
    "nothing": OWN,
    "interchange the attribute": SPARE,
    "interchange the entity": OWN,
    "exchange entities": OWN,
    "exchange attributes": OWN,
    "shift entities": OTHER,
    "shift attributes": OTHER,
    "shift both": OWN,
    "shift both, at random": OWN,
}


@dataclass(frozen=True)
class Bind:
    model: str
    n: int  # contexts of a seed
    n_fit: int  # other contexts, of which the mean differences are taken
    n_pairs: int
    seeds: tuple[int, ...]
    out: Path


def edits(forward, model, contexts: Contexts, fit: Contexts, key: jax.Array) -> dict[str, np.ndarray]:
    """Log-probabilities after each edit `[context option]`: options as above, then the other slots'."""
    metric, held = geometry.option_log_probs(contexts.options()), contexts.mask("context")
    crossed, tokens = contexts.crossed(), contexts.tokens
    e, a = (contexts.columns[kind][:2] for kind in ("entity", "attribute"))
    vectors = geometry.binding_vectors(forward, SITE)
    swaps = [geometry.exchanging(vectors(model, fit.tokens, fit.columns[kind]), 0, 1) for kind in fit.columns]
    random = [_as_long(k, swap) for k, swap in zip(jax.random.split(key), swaps, strict=True)]
    interchange, exchange, shift = (
        method(forward, metric, SITE) for method in (geometry.interchange, geometry.exchange, geometry.shift)
    )
    both = jnp.concatenate([e, a])
    found = {
        "nothing": metric(forward(model, tokens)),
        "interchange the attribute": interchange(model, tokens, crossed[1, 1, 0], a[:1], held=held),
        # The spare entity stands where the own one stood, and is asked for.
        "interchange the entity": interchange(model, crossed[0, 0, 1], crossed[1, 1, 1], e[:1], held=held),
        "exchange entities": exchange(model, tokens, e[:1], e[1:], held),
        "exchange attributes": exchange(model, tokens, a[:1], a[1:], held),
        "shift entities": shift(model, tokens, e, swaps[0], held),
        "shift attributes": shift(model, tokens, a, swaps[1], held),
        "shift both": shift(model, tokens, both, jnp.concatenate(swaps, axis=-2), held),
        "shift both, at random": shift(model, tokens, both, jnp.concatenate(random, axis=-2), held),
    }
    return {name: np.asarray(scores) for name, scores in found.items()}


def _as_long(key: jax.Array, vectors: jax.Array) -> jax.Array:
    """Random vectors of the same lengths."""
    drawn = jax.random.normal(key, vectors.shape)
    lengths = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (vectors, drawn))
    length, unit = lengths
    return drawn * length / unit


def study(cfg: Bind, model, tokenizer, seed: int, begin) -> dict[str, dict[str, np.ndarray]]:
    """By model and edit: the shares of the answers `[own, spare, second slot's, another]`, and log-probabilities."""
    key = jax.random.key(seed)
    draw, fitted, noise = jax.random.split(key, 3)
    sizes = {"planted": (256, 1024), Path(cfg.model).stem: (cfg.n, cfg.n_fit)}
    found = {}
    for name, (n, n_fit) in sizes.items():
        begin(name)
        if name == "planted":
            forward, subject = planted.forward, planted.create(key, "binding ID")
            contexts, fit = (planted.contexts(k, m) for k, m in ((draw, n), (fitted, n_fit)))
        else:
            forward, subject = binding_contexts.answer_logits, model
            contexts, fit = (
                binding_contexts.make(cfg.model, k, tokenizer, m, cfg.n_pairs) for k, m in ((draw, n), (fitted, n_fit))
            )
        scores = edits(forward, subject, contexts, fit, noise)
        shares = {edit: (s.argmax(-1)[:, None] == np.arange(s.shape[1])).mean(0) for edit, s in scores.items()}
        means = {edit: s[:, :3].mean(0) for edit, s in scores.items()}
        found[name] = {
            "shares": {edit: np.append(share[:3], share[3:].sum()) for edit, share in shares.items()},
            "log_probs": means,
        }
    return found


def table(cfg: Bind, found: dict) -> str:
    rows = []
    for edit, predicted in PREDICTED.items():
        ours = np.asarray(found[Path(cfg.model).stem]["shares"][edit])
        rows.append(
            {"edit": edit, "predicted": ("own", "spare", "second")[predicted]}
            | {name: runs.cell(np.asarray(one["shares"][edit])[:, predicted]) for name, one in found.items()}
            | {"  own": runs.cell(ours[:, OWN]), "spare": runs.cell(ours[:, SPARE])}
            | {"second": runs.cell(ours[:, OTHER]), "another": runs.cell(ours[:, 3])}
        )
    return runs.table(rows)


def story(cfg: Bind, found: dict) -> str:
    def most(name: str, edit: str) -> bool:
        return bool(np.argmax(np.mean(found[name]["shares"][edit], axis=0)) == PREDICTED[edit])

    name = Path(cfg.model).stem
    right = {name: sum(most(name, edit) for edit in PREDICTED) for name in found}
    swapped = [edit for edit in ("shift entities", "shift attributes") if most(name, edit)]
    whether = f"exchanges answers by {' and '.join(swapped)}" if swapped else "exchanges no answers by shifts"
    return (
        f"The answer that binding IDs predict is the most frequent one after {right['planted']} of {len(PREDICTED)} "
        f"edits of the planted model, and {right[name]} of {name}, which {whether}."
    )


def draw(cfg: Bind, found: dict) -> go.Figure:
    figure = go.Figure(layout={"title": f"The answer that binding IDs predict: share of contexts, {cfg.model}"})
    for name, one in found.items():
        values = np.stack([np.asarray(one["shares"][edit])[:, at] for edit, at in PREDICTED.items()], axis=1)
        labels = [f"{edit}<br>→ {('own', 'spare', 'second')[at]}" for edit, at in PREDICTED.items()]
        figure.add_bar(x=labels, y=values.mean(0), error_y={"array": runs.spread(values)}, name=name)
    return figure.update_layout(yaxis_title="share of the predicted answer", barmode="group")


def main(cfg: Bind) -> dict[str, dict]:
    """By model, "shares" and "log_probs" of the answers after each edit `[seed answer]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)
    found = runs.each(
        cfg.seeds,
        2,
        "binding, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("binding", cfg, found),
    )
    about = (
        f"{cfg.model}: {cfg.n} contexts of {cfg.n_pairs} pairs, asked for the first, seeds {list(cfg.seeds)}. Share of "
        "the answer that binding IDs predict, of a planted model and of this one; then of all its answers"
    )
    runs.finish("binding", cfg, found, draw(cfg, found), about, table(cfg, found), story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Bind, "configs/binding.toml"))
