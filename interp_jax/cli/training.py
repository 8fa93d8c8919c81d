"""Training a dictionary with a progress bar and TensorBoard scalars."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import dictionaries


def train(
    activations: np.ndarray, *, d_sae: int, k: int, n_steps: int, batch_size: int, seed: int, log: Path
) -> tuple[dictionaries.TopK, float]:
    """Trains a `TopK` on activations `[token d_in]`; returns it for activations as they are, and the scale of training.

    Inputs are scaled to a mean norm of sqrt(d_in), so that one learning rate suits every model; the scale is folded
    into the dictionary at the end.

    Raises:
      FloatingPointError: the loss is not finite; names the step.
      ValueError: impossible sizes, or all activations are zero.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from tensorboard.summary import Writer

    n_tokens, d_in = activations.shape
    norm = float(np.linalg.norm(activations, axis=-1).mean())
    if not norm > 0:
        raise ValueError("the activations are all zero or not finite; choose another --site")
    scale = d_in**0.5 / norm
    b_dec = jnp.asarray(activations.mean(0) * np.float32(scale))
    start, order = jax.random.split(jax.random.key(seed))
    dictionary = dictionaries.TopK.create(start, d_in, d_sae, k, b_dec=b_dec)
    state = dictionaries.TrainState.create(dictionary, n_steps)
    rng = np.random.default_rng(int(jax.random.bits(order)))

    def batches() -> Iterator[jax.Array]:
        n = min(batch_size, n_tokens)
        shuffled, at = rng.permutation(n_tokens), 0
        for _ in range(n_steps):
            if at + n > n_tokens:
                shuffled, at = rng.permutation(n_tokens), 0
            yield jnp.asarray(activations[shuffled[at : at + n]] * np.float32(scale))
            at += n

    columns = (TextColumn("  "), BarColumn(16), TaskProgressColumn(), TextColumn("{task.fields[scores]}"))
    every = max(1, min(20, n_steps // 10))
    writer = Writer(str(log))
    with Progress(*columns) as progress:
        task, clock = progress.add_task("training", total=n_steps, scores=""), [time.monotonic()]

        def report(info: Any) -> None:
            step, now = int(info.step) + 1, time.monotonic()
            scores = {f.name: float(getattr(info, f.name)) for f in dataclasses.fields(info) if f.name != "step"}
            scores["tokens_per_second"] = every * batch_size / max(now - clock[0], 1e-9)
            clock[0] = now
            for name, value in scores.items():
                writer.add_scalar(f"train/{name}", value, step)
            line = "loss {loss:.3g}  l0 {l0:.1f}  fvu {fvu:.3f}  dead {dead:.1%}  {tokens_per_second:,.0f} tok/s"
            progress.update(task, completed=step, scores=line.format(**scores))

        state = dictionaries.train(state, batches(), report=report, every=every)
    writer.close()
    return state.dictionary.fold_scale(scale), scale
