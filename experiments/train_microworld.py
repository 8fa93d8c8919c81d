"""Trains a decoder shipped with the package and writes its folder: weights in bfloat16, tokenizer, card.

`python experiments/train_microworld.py [microworld-sums] [--n-steps 2500] [--out DIR]`. A killed run continues from its
last checkpoint and ends with the same weights: the sentences of a step depend on the seed and the step alone.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
import json
from pathlib import Path
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers
from tensorboard.summary import Writer

from interp_jax import config, data, models
from interp_jax.io import orbax


@dataclass(frozen=True)
class Train:
    name: str
    version: str
    world: str
    seed: int
    n_steps: int
    batch_size: int
    n_positions: int  # of a training row: one more than the model sees, its last word is only a target
    run: Path  # checkpoints and TensorBoard: a killed run goes on from here
    out: Path  # the finished model; a folder of models/shipped is a copy of it
    model: models.Config
    undetermined: float = 0.2  # loss weight of the words that nothing before them determines
    learning_rate: float = 7e-3  # of Muon, for the matrices of the blocks
    adam_learning_rate: float = 7e-3  # of AdamW, for embeddings and norms
    weight_decay: float = 0.01
    warmup_steps: int = 100
    steps_per_call: int = 10
    checkpoint_every: int = 100
    n_eval: int = 1000


def loss(params: list, build: Callable, tokens: jax.Array, determined: jax.Array, undetermined: float) -> jax.Array:
    logits = models.forward(build(params), tokens[:, :-1])
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    weights = jnp.where(determined[:, 1:], 1.0, undetermined)
    return (cross_entropy * weights).sum() / weights.sum()


def optimizer(cfg: Train, names: list[str]) -> optax.GradientTransformation:
    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, cfg.warmup_steps, cfg.n_steps, 0.02 * peak)

    # Muon takes the matrices of the blocks: which axes each sums over, and which it gives. AdamW takes the rest.
    heads, back, one = (MuonDimensionNumbers(*axes) for axes in ((0, (1, 2)), ((0, 1), 2), (0, 1)))
    matrices = dict(w_q=heads, w_k=heads, w_v=heads, w_o=back, w_in=one, w_gate=one, w_out=one)
    muon = optax.contrib.muon(
        schedule(cfg.learning_rate),
        adam_learning_rate=schedule(cfg.adam_learning_rate),
        weight_decay=cfg.weight_decay,
        muon_weight_dimension_numbers=[matrices.get(name) for name in names],
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def main(cfg: Train) -> dict[str, float]:
    world = data.WORLDS[cfg.world]
    special = {"bos_token": "<bos>", "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": True}
    tokenizer = models.Tokenizer(world.tokenizer(), special | dict(world.tokenizer_config))
    if cfg.out.exists():
        raise FileExistsError(f"{cfg.out}: is there already; remove it or give another --out")
    if cfg.model.d_vocab != tokenizer.d_vocab:
        raise ValueError(f"d_vocab = {cfg.model.d_vocab}, but the world has {tokenizer.d_vocab} words")
    model = models.Decoder.create(jax.random.key(cfg.seed), cfg.model)
    paths, structure = jax.tree_util.tree_flatten_with_path(model)
    build, params = partial(jax.tree.unflatten, structure), [leaf for _, leaf in paths]
    update = optimizer(cfg, [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in paths])

    @partial(jax.jit, donate_argnums=0)
    def train_steps(state: tuple, batches: tuple) -> tuple[tuple, jax.Array]:
        def train_step(state: tuple, batch: tuple) -> tuple[tuple, jax.Array]:
            params, update_state = state
            value, gradient = jax.value_and_grad(loss)(params, build, *batch, cfg.undetermined)
            change, update_state = update.update(gradient, update_state, params)
            return (optax.apply_updates(params, change), update_state), value

        return jax.lax.scan(train_step, state, batches)

    state, step = (params, update.init(params)), 0
    if (cfg.run / "checkpoint").exists():
        saved, metadata = orbax.load(cfg.run / "checkpoint")
        state, step = jax.tree.unflatten(jax.tree.structure(state), [saved[k] for k in sorted(saved)]), metadata["step"]
    forward = jax.jit(models.forward)
    evaluate = partial(data.card.accuracies, forward, n=200, seed=cfg.seed, world=cfg.world)
    writer = Writer(str(cfg.run / "tensorboard"))
    while step < cfg.n_steps:
        rngs = [random.Random(f"{cfg.seed} {step + i}") for i in range(cfg.steps_per_call)]
        rows = [world.batch(rng, (cfg.batch_size, cfg.n_positions), world.mixture) for rng in rngs]
        state, losses = train_steps(state, tuple(np.stack(column) for column in zip(*rows, strict=True)))
        step += cfg.steps_per_call
        writer.add_scalar("loss", float(losses.mean()), step)
        if step % cfg.checkpoint_every == 0:
            leaves = {f"{i:04}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
            orbax.save(cfg.run / "checkpoint", leaves, {"step": step})
            accuracies = evaluate(model=build(state[0]), tokenizer=tokenizer)
            for name, value in accuracies.items():
                writer.add_scalar(f"accuracy/{name}", value, step)
            print(step, f"loss {losses.mean():.3f}", *(f"{k} {v:.2f}" for k, v in accuracies.items()), flush=True)
    writer.close()

    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), build(state[0]))
    models.save(cfg.out, model, tokenizer)
    card = data.card.measure(forward, model, tokenizer, n=cfg.n_eval, seed=cfg.seed + 1, world=world) | {
        "n_parameters": sum(leaf.size for leaf in jax.tree.leaves(model)),
        "config": {name: value for name, value in asdict(cfg).items() if name not in ("run", "out")},
    }
    (cfg.out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (cfg.out / "README.md").write_text(data.card.render(cfg.name, card, world))
    return card["heldout"]


if __name__ == "__main__":
    which = [word for word in sys.argv[1:2] if not word.startswith("-")] or ["microworld"]
    file = f"configs/train_{which[0].replace('-', '_')}.toml"
    print(main(config.load(Train, file, [word for word in sys.argv[1:] if word not in which])))
