"""How soon does a model know what it will say: what does each layer's residual stream predict?

The logit lens reads a layer's state as if it were the last one's. The tuned lens (Belrose et al. 2023,
https://arxiv.org/abs/2303.08112) first translates it: an affine map for each layer, trained so that the prediction is
the model's own. How far a prediction is from the model's own is told by the KL divergence, in nats, on held-out texts.

    python experiments/tuned_lens.py [--model stories260K --text stories.txt] [--out DIR]

Two minutes on two cores. It prints the divergence of both lenses by layer, mean and spread over seeds of the order of
the texts, and saves the lens of the first seed in `lens`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plotly.graph_objects as go
import runs

import interp_jax as ij
from interp_jax import config, lens, models
from interp_jax.data import corpus

SITE = "blocks.resid_pre"


@dataclass(frozen=True)
class Tune:
    model: str
    n_tokens: int
    n_positions: int
    batch_size: int  # sequences
    n_steps: int
    learning_rate: float
    seeds: tuple[int, ...]
    out: Path
    text: Path | None = None  # by default the microworld's


@dataclass(frozen=True)
class Texts:
    """Tokens `[sequence position]`, and which of them count."""

    tokens: np.ndarray
    mask: np.ndarray

    def rows(self, which) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.tokens[which]), jnp.asarray(self.mask[which])


def batches(cfg: Tune, train: Texts, seed: int, begin) -> Iterator[tuple[jax.Array, jax.Array]]:
    """As many batches as there are steps, drawn anew for each."""
    rng = np.random.default_rng(seed)
    for step in range(cfg.n_steps):
        begin(f"step {step}")
        yield train.rows(rng.choice(len(train.tokens), cfg.batch_size, replace=False))


def tuned(cfg: Tune, start: lens.TunedLens, model, train: Texts, seed: int, begin) -> lens.TunedLens:
    """The lens after training on the texts in the order of one seed."""
    schedule = optax.cosine_decay_schedule(cfg.learning_rate, cfg.n_steps)
    state = lens.LensState.create(start, optax.adam(schedule))
    seen = batches(cfg, train, seed, begin)
    return lens.train_lens(state, models.forward, model, models.weights(model), seen, site=SITE).lens


def story(before: np.ndarray, after: np.ndarray) -> str:
    nearer = int((after.mean(0) < before).sum())
    return (
        f"The tuned lens is nearer to the model at {nearer} of {len(before)} layers; before the last block it leaves "
        f"{after.mean(0)[-1]:.2f} nats where the logit lens leaves {before[-1]:.2f}."
    )


def draw(cfg: Tune, before: np.ndarray, after: np.ndarray) -> go.Figure:
    figure = go.Figure(layout={"title": f"KL from the model's predictions, {cfg.model}"})
    figure.add_scatter(y=before, name="logit lens", mode="lines+markers")
    runs.curve(figure, after, name="tuned lens", mode="lines+markers")
    return figure.update_layout(xaxis_title="before layer", yaxis_title="nats")


def main(cfg: Tune) -> dict[str, np.ndarray]:
    """The divergence of the logit lens `[layer]` and of the tuned lens `[seed layer]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    read = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=cfg.n_positions, seed=0)
    tokens, mask = read.tokens[:, : cfg.n_positions], read.mask[:, : cfg.n_positions]
    n_held = len(tokens) // 10
    train = Texts(tokens[n_held:], mask[n_held:])
    held, counts = Texts(tokens, mask).rows(slice(n_held))
    logits, acts = ij.capture(models.forward, SITE)(model, held)

    def divergence(one: lens.TunedLens) -> np.ndarray:
        return np.asarray(one.divergence(models.weights(model), acts[SITE], logits, counts))

    # A tuned lens that has learned nothing is the logit lens.
    start = lens.TunedLens.create(model.config.d_model, model.config.n_layers, eps=model.config.norm_eps, capped=True)
    before = divergence(start)

    def study(seed: int, begin) -> np.ndarray:
        one = tuned(cfg, start, model, train, seed, begin)
        if seed == cfg.seeds[0]:
            lens.save(cfg.out / "lens", one, model=cfg.model, site=SITE)
        return divergence(one)

    def numbers(after: np.ndarray) -> dict[str, np.ndarray]:
        return {"logit lens": before, "tuned lens": after}

    def keep(after: np.ndarray) -> None:
        runs.write("tuned_lens", cfg, numbers(after))

    after = runs.each(cfg.seeds, cfg.n_steps, "lens, seed", study, keep)
    about = (
        f"{cfg.model}: KL(model || lens) in nats on {int(counts.sum()):,} held-out tokens, seeds {list(cfg.seeds)}, "
        "mean ± spread"
    )
    rows = [
        {"before layer": layer, "logit lens": f"{plain:.3f}", "tuned lens": runs.cell(after[:, layer], 3)}
        for layer, plain in enumerate(before)
    ]
    runs.finish(
        "tuned_lens", cfg, numbers(after), draw(cfg, before, after), about, runs.table(rows), story(before, after)
    )
    return numbers(after)


if __name__ == "__main__":
    main(config.load(Tune, "configs/tuned_lens.toml"))
