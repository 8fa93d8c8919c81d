"""How soon is a model disposed to say what it says: the Jacobian lens beside logit lens and tuned lens.

The Jacobian lens (Gurnee et al. 2026, https://transformer-circuits.pub/2026/workspace) carries a layer's state to the
last layer by the mean slope between the two. On held-out texts: at what share of positions is a lens's first word the
model's own, and which layer says it first? Then single states are edited along the directions in which a lens reads two
words, the model's own and that of another text: steered towards the other, ablated, swapped; beside the logit lens's
directions and random ones. Told is how much the other word's logit gains over the model's own, in nats.

    python experiments/jacobian_lens.py [--model stories260K --text stories.txt] [--out DIR]

Both fitted lenses see texts of the same draw, one for each seed; the Jacobian lens the first `n_texts` of them. Writes
the lens of the first seed in `lens`, and what every layer says of one held-out text in `page.html`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jacobian_edits import EDITS, SOURCES, effects
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import config, lens, models, report
from interp_jax.data import corpus

SITE = "blocks.resid_pre"


@dataclass(frozen=True)
class Jacobian:
    model: str
    n_tokens: int
    n_positions: int
    n_texts: int  # of the Jacobian lens
    skip_first: int  # positions of each text
    n_held: int  # texts
    batch_size: int  # texts
    n_steps: int  # of the tuned lens
    learning_rate: float
    strength: float  # of steering, in norms of the state
    every: int  # how many layers apart states are edited
    seeds: tuple[int, ...]
    out: Path
    text: Path | None = None  # by default the microworld's


Batches = list[tuple[jax.Array, jax.Array]]  # tokens and what counts, [text position] each


def fitted(cfg: Jacobian, model: Any, batches: Batches, begin: Callable[[str], None]) -> dict[str, lens.Lens]:
    """The lenses of the texts of one seed, by name; the logit lens is a tuned lens that has learned nothing."""
    sizes = model.config.d_model, model.config.n_layers
    start = {"eps": model.config.norm_eps, "capped": True}
    plain = lens.TunedLens.create(*sizes, **start)
    begin("tuned lens")
    optimizer = optax.adam(optax.cosine_decay_schedule(cfg.learning_rate, cfg.n_steps))
    state = lens.LensState.create(plain, optimizer)
    steps = batches[: cfg.n_steps]
    tuned = lens.train_lens(state, models.forward, model, models.weights(model), steps, site=SITE).lens

    def told() -> Any:
        for i, batch in enumerate(batches[: cfg.n_texts // cfg.batch_size]):
            begin(f"Jacobian lens, batch {i}")
            yield batch

    empty = lens.JacobianLens.create(*sizes, **start)
    slopes = lens.fit_jacobian(empty, models.forward, model, told(), site=SITE, skip_first=cfg.skip_first)
    return {"logit lens": plain, "tuned lens": tuned, "Jacobian lens": slopes}


@jax.jit
def top_words(one: lens.Lens, weights: Any, resid: jax.Array) -> jax.Array:
    """The first word `[text layer position]` that a lens reads; logits of one text are held at a time."""
    return jax.lax.map(lambda x: one(weights, x).argmax(-1), jnp.moveaxis(resid, 1, 0))


def first_layer(same: np.ndarray) -> np.ndarray:
    """The first layer `[...]` of `[layer ...]` that says the word; the number of layers where none does."""
    return np.where(same.any(0), same.argmax(0), len(same))


def story(first: dict[str, np.ndarray], gains: dict[str, np.ndarray], n: int) -> str:
    """What was found, in a sentence each."""
    mean = {name: values.mean() for name, values in first.items()}
    order = ", then ".join(f"the {name} ({mean[name]:.2f})" for name in sorted(mean, key=lambda name: mean[name]))
    best = {name: values.mean(0).max() for name, values in gains.items()}
    edits = "; ".join(
        f"to {edit} {best[f'{edit}, Jacobian']:.2f}, along the logit lens's {best[f'{edit}, logit']:.2f}, along random "
        f"ones {best[f'{edit}, random']:.2f}"
        for edit in EDITS
    )
    return (
        f"Of {n} layers ({n} where none does) the first to say the model's word is that of {order}. Most nats that the "
        f"other word gains, over layers, by an edit along the Jacobian lens's directions: {edits}."
    )


def draw(cfg: Jacobian, share: dict[str, np.ndarray], gains: dict[str, np.ndarray], layers: np.ndarray) -> go.Figure:
    titles = ["the lens's first word is the model's", *(f"{edit}: gain of the other word" for edit in EDITS)]
    figure = make_subplots(2, 2, subplot_titles=titles)
    colours = {"logit": "#8b929a", "tuned": "#b4530a", "Jacobian": "#0f6fb8", "random": "#c9b458"}
    for name, values in share.items():
        runs.curve(figure, values, name=name, mode="lines+markers", line_color=colours[name.split()[0]])
    for place, edit in enumerate(EDITS, start=1):
        for kind in SOURCES:
            line = go.Figure()
            look = {"name": kind, "legendgroup": kind, "showlegend": edit == "steer" and kind == "random"}
            runs.curve(line, gains[f"{edit}, {kind}"], x=layers, line_color=colours[kind], **look)
            figure.add_trace(line.data[0], row=place // 2 + 1, col=place % 2 + 1)
    figure.update_yaxes(title="nats").update_yaxes(title="share of positions", row=1, col=1)
    return figure.update_xaxes(title="before layer").update_layout(title=f"Jacobian lens, {cfg.model}")


def main(cfg: Jacobian) -> dict[str, Any]:
    """Shares `[seed layer]` and first layers `[seed]` by lens, gains `[seed layer]` by edit and directions."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)
    read = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=cfg.n_positions, seed=0)
    tokens, mask = jnp.asarray(read.tokens[:, : cfg.n_positions]), read.mask[:, : cfg.n_positions]
    full = np.flatnonzero(mask[:, 1:].all(1))  # texts without padding
    held, train = full[: cfg.n_held], full[cfg.n_held :]
    weights, counts = models.weights(model), mask[held]
    logits, acts = ij.capture(models.forward, SITE)(model, tokens[held])
    own, resid = np.asarray(logits.argmax(-1)), acts[SITE]
    at = np.random.default_rng(0).integers(cfg.n_positions // 2, cfg.n_positions, len(held))  # where states are edited
    said = own[np.arange(len(held)), at]
    others = np.array([next((w for w in np.roll(said, -i) if w != said[i]), -1) for i in range(len(held))])
    some = np.flatnonzero(others >= 0)
    words = jnp.stack([said, others], -1)[some]  # the model's own, and what it says in another text
    layers = np.arange(0, model.config.n_layers, cfg.every)

    def study(seed: int, begin: Callable[[str], None]) -> dict[str, Any]:
        rng, n_batches = np.random.default_rng(seed), max(cfg.n_steps, cfg.n_texts // cfg.batch_size)
        rows = np.concatenate([rng.permutation(train) for _ in range(-(-n_batches * cfg.batch_size // len(train)))])
        rows = rows[: n_batches * cfg.batch_size].reshape(n_batches, cfg.batch_size)
        lenses = fitted(cfg, model, [(tokens[some], jnp.asarray(mask[some])) for some in rows], begin)
        found: dict[str, Any] = {"share": {}, "first": {}}
        for name, one in lenses.items():
            same = np.moveaxis(np.asarray(top_words(one, weights, resid)), 1, 0) == own
            found["share"][name] = same[:, counts].mean(1)
            found["first"][name] = first_layer(same[:, counts]).mean()
        begin("edits")
        what = tokens[held[some]], at[some], words, resid[:, some], cfg.strength, jax.random.key(seed)
        found["gain"] = effects(SITE, model, lenses["Jacobian lens"], layers, *what)
        if seed == cfg.seeds[0]:
            lens.save(cfg.out / "lens", lenses["Jacobian lens"], model=cfg.model, site=SITE)
            readings = {name: one(weights, resid[:, 0]) for name, one in lenses.items()}
            texts = (tokenizer.to_str_tokens(np.asarray(tokens[held[0]])), tokenizer.to_str_tokens)
            page = report.lens_page(readings, *texts, title=f"{Path(cfg.model).name} · lenses", logits=logits[0])
            (cfg.out / "page.html").write_text(page, encoding="utf-8")
        return found

    def keep(found: dict[str, Any]) -> None:
        runs.write("jacobian_lens", cfg, found)

    found = runs.each(cfg.seeds, 2 + cfg.n_texts // cfg.batch_size, "lenses, seed", study, keep)
    about = f"{cfg.model}: {int(counts.sum()):,} held-out positions, seeds {list(cfg.seeds)}, mean ± spread"
    rows = [{"lens": name, "first layer": runs.cell(values)} for name, values in found["first"].items()]
    gains = [
        {"gain before layer": name} | {str(layer): runs.cell(values[:, i]) for i, layer in enumerate(layers)}
        for name, values in found["gain"].items()
    ]
    tables = runs.layer_table("share before layer", found["share"]), runs.table(rows), runs.table(gains)
    end = story(found["first"], found["gain"], model.config.n_layers)
    runs.finish("jacobian_lens", cfg, found, draw(cfg, found["share"], found["gain"], layers), about, *tables, end)
    return found


if __name__ == "__main__":
    main(config.load(Jacobian, "configs/jacobian_lens.toml"))
