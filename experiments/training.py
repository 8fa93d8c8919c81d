"""What the scripts that train the shipped models share: the optimizer, steps in one program, a run that goes on.

A run that was killed goes on from its last checkpoint and ends with the same weights, as long as the batch of a step
depends on the seed and the step alone.
"""

from collections.abc import Callable
from functools import partial
import json
from pathlib import Path
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from interp_jax.io import orbax

State = tuple[list[jax.Array], Any]  # a model's arrays, and the optimizer's
Steps = Callable[[State, tuple], tuple[State, Any]]


def taken_apart(model: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any], list[str]]:
    """A model's arrays, what makes a model of such arrays again, and their names."""
    paths, structure = jax.tree_util.tree_flatten_with_path(model)
    names = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in paths]
    return [leaf for _, leaf in paths], partial(jax.tree.unflatten, structure), names


def optimizer(cfg: Any, names: list[str]) -> optax.GradientTransformation:
    """Muon for the matrices of the blocks, which are known by their names, and AdamW for the rest.

    `cfg` has `learning_rate` (Muon's), `adam_learning_rate`, `weight_decay`, `warmup_steps` and `n_steps`.
    """

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, cfg.warmup_steps, cfg.n_steps, 0.02 * peak)

    # Which axes each matrix sums over, and which it gives.
    into_heads, out_of_heads, plain = (MuonDimensionNumbers(*axes) for axes in ((0, (1, 2)), ((0, 1), 2), (0, 1)))
    matrices = dict.fromkeys(("w_q", "w_k", "w_v"), into_heads) | {"w_o": out_of_heads}
    matrices |= dict.fromkeys(("w_in", "w_gate", "w_out"), plain)
    muon = optax.contrib.muon(
        schedule(cfg.learning_rate),
        adam_learning_rate=schedule(cfg.adam_learning_rate),
        weight_decay=cfg.weight_decay,
        muon_weight_dimension_numbers=[matrices.get(name) for name in names],
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def compiled_steps(slope: Callable[..., tuple[Any, list]], update: optax.GradientTransformation) -> Steps:
    """A function (state, batches) -> the state after a step on each batch, and what was told of each step.

    Args:
      slope: (arrays, *batch) -> what is told of the step, and the gradient, as `jax.value_and_grad` gives them.
      update: the optimizer.
    """

    def step(state: State, batch: tuple) -> tuple[State, Any]:
        params, moments = state
        told, gradient = slope(params, *batch)
        change, moments = update.update(gradient, moments, params)
        return (optax.apply_updates(params, change), moments), told

    @partial(jax.jit, donate_argnums=0)
    def steps(state: State, batches: tuple) -> tuple[State, Any]:
        return jax.lax.scan(step, state, batches)

    return steps


def save_checkpoint(folder: Path, state: State, step: int) -> None:
    """Keeps the state, so that `last_checkpoint` finds it."""
    leaves = {f"{i:04}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    orbax.save(folder / "checkpoint", leaves, {"step": step})


def last_checkpoint(folder: Path, new: State) -> tuple[State, int]:
    """The state that was kept last and its step; the new one and 0 if none was."""
    if not (folder / "checkpoint").exists():
        return new, 0
    saved, metadata = orbax.load(folder / "checkpoint")
    leaves = [saved[name] for name in sorted(saved)]
    return jax.tree.unflatten(jax.tree.structure(new), leaves), metadata["step"]


def check_new(out: Path) -> None:
    """A finished model is not written over."""
    if out.exists():
        raise FileExistsError(f"{out}: is there already; remove it or give another --out")


def write_card(out: Path, card: dict[str, Any], readme: str) -> None:
    """The numbers of a model beside it, for machines and for people."""
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (out / "README.md").write_text(readme)
