"""The tuned lens beside the logit lens: how soon each layer's residual stream says what the model will say.

`python experiments/tuned_lens.py [--model stories260K --text stories.txt] [--out DIR]`. Belrose et al. 2023,
https://arxiv.org/abs/2303.08112: KL from the model's own next-token distribution, in nats, on held-out texts, by layer;
mean and spread over seeds of the order of the texts. The lens of the first seed is saved.
"""

from dataclasses import dataclass
import itertools
from pathlib import Path

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


def main(cfg: Tune) -> dict[str, np.ndarray]:
    model, tokenizer = models.load(cfg.model, dtype="float32")
    weights, eps = models.weights(model), model.config.norm_eps
    read = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=cfg.n_positions, seed=0)
    tokens, mask = read.tokens[:, : cfg.n_positions], read.mask[:, : cfg.n_positions]
    n = len(tokens) // 10
    held_out = jnp.asarray(tokens[:n]), jnp.asarray(mask[:n])
    logits, acts = ij.capture(models.forward, SITE)(model, held_out[0])
    plain = lens.TunedLens.create(model.config.d_model, model.config.n_layers, eps=eps, capped=True)
    before = np.asarray(plain.divergence(weights, acts[SITE], logits, held_out[1]))

    def study(seed: int, begin) -> np.ndarray:
        rng = np.random.default_rng(seed)
        orders = (rng.choice(np.arange(n, len(tokens)), cfg.batch_size, replace=False) for _ in itertools.count())
        batches = ((jnp.asarray(tokens[rows]), jnp.asarray(mask[rows])) for rows in orders)
        schedule = optax.cosine_decay_schedule(cfg.learning_rate, cfg.n_steps)
        state = lens.LensState.create(plain, optax.adam(schedule))

        def counted():
            for step, batch in enumerate(itertools.islice(batches, cfg.n_steps)):
                begin(f"step {step}")
                yield batch

        tuned = lens.train_lens(state, models.forward, model, weights, counted(), site=SITE).lens
        if seed == cfg.seeds[0]:
            lens.save(cfg.out / "lens", tuned, model=cfg.model, site=SITE)
        return np.asarray(tuned.divergence(weights, acts[SITE], logits, held_out[1]))

    def keep(after: np.ndarray) -> None:
        runs.write(
            cfg.out / "tuned_lens.json", cfg, {"logit lens": before, "tuned lens": after}
        )  # [layer], [seed layer]

    after = runs.each(cfg.seeds, cfg.n_steps, "lens, seed", study, keep)
    mean, spread = np.mean(after, 0), runs.spread(after)
    n_real = int(held_out[1].sum())
    print(f"{cfg.model}: KL(model || lens) in nats on {n_real:,} held-out tokens, seeds {list(cfg.seeds)}\n")
    print("layer  logit lens     tuned lens")
    for layer, (logit, m, s) in enumerate(zip(before, mean, spread, strict=True)):
        print(f"{layer:5}  {logit:10.3f}  {m:8.3f} ±{s:.3f}")
    nearer = int((mean < before).sum())
    print(f"\nThe tuned lens is nearer to the model at {nearer} of {len(mean)} layers; before the last block it")
    print(f"leaves {mean[-1]:.2f} nats where the logit lens leaves {before[-1]:.2f}.")
    figure = go.Figure(layout={"title": f"KL from the model's predictions, {cfg.model}", "yaxis_title": "nats"})
    figure.add_scatter(y=before, name="logit lens", mode="lines+markers")
    figure.add_scatter(y=mean, error_y={"array": spread}, name="tuned lens", mode="lines+markers")
    figure.update_layout(xaxis_title="before layer")
    figure.write_html(cfg.out / "tuned_lens.html")
    return {"logit lens": before, "tuned lens": np.asarray(after)}


if __name__ == "__main__":
    main(config.load(Tune, "configs/tuned_lens.toml"))
