"""Trains a decoder that is shipped with the package, and writes its folder: weights in bfloat16, tokenizer, card.

Each model reads the sentences of a world that the package itself makes (`interp_jax.data.worlds`), so that what is true
of every word is known. Words that nothing before them determines, such as the first name of a story, weigh less.

    python experiments/train_microworld.py [microworld-sums] [--n-steps 2500] [--out DIR]

It prints the loss and the accuracy of each phenomenon at each checkpoint, and writes them for TensorBoard. A killed run
goes on from its last checkpoint and ends with the same weights: the sentences of a step depend on the seed and the step
alone.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tensorboard.summary import Writer
from training import check_new, compiled_steps, last_checkpoint, optimizer, save_checkpoint, taken_apart, write_card

from interp_jax import config, data, models
from interp_jax.data.worlds import WORLDS, World


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


def loss(params: list, tokens: jax.Array, determined: jax.Array, build: Callable, undetermined: float) -> jax.Array:
    """Cross-entropy of the next word; those that nothing before them determines weigh less."""
    logits = models.forward(build(params), tokens[:, :-1])
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    weights = jnp.where(determined[:, 1:], 1.0, undetermined)
    return (cross_entropy * weights).sum() / weights.sum()


def tokenizer_of(cfg: Train, world: World) -> models.Tokenizer:
    """The world's words, which must be as many as the model's."""
    special = {"bos_token": "<bos>", "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": True}
    tokenizer = models.Tokenizer(world.tokenizer(), special | dict(world.tokenizer_config))
    if cfg.model.d_vocab != tokenizer.d_vocab:
        raise ValueError(f"d_vocab = {cfg.model.d_vocab}, but the world has {tokenizer.d_vocab} words")
    return tokenizer


def batches(cfg: Train, world: World, step: int) -> tuple[np.ndarray, ...]:
    """The sentences of the next steps, `[step batch position]`, and which of their words are determined."""
    rngs = [random.Random(f"{cfg.seed} {step + i}") for i in range(cfg.steps_per_call)]
    rows = [world.batch(rng, (cfg.batch_size, cfg.n_positions), world.mixture) for rng in rngs]
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def trained(cfg: Train, world: World, tokenizer: models.Tokenizer) -> models.Decoder:
    """The model after its last step. Losses and accuracies are logged; what was done before is not done again."""
    params, build, names = taken_apart(models.Decoder.create(jax.random.key(cfg.seed), cfg.model))
    update = optimizer(cfg, names)
    slope = jax.value_and_grad(partial(loss, build=build, undetermined=cfg.undetermined))
    steps = compiled_steps(slope, update)
    evaluate = partial(data.card.accuracies, jax.jit(models.forward), n=200, seed=cfg.seed, world=cfg.world)

    state, step = last_checkpoint(cfg.run, (params, update.init(params)))
    writer = Writer(str(cfg.run / "tensorboard"))
    while step < cfg.n_steps:
        state, losses = steps(state, batches(cfg, world, step))
        step += cfg.steps_per_call
        writer.add_scalar("loss", float(losses.mean()), step)
        if step % cfg.checkpoint_every == 0:
            save_checkpoint(cfg.run, state, step)
            accuracies = evaluate(model=build(state[0]), tokenizer=tokenizer)
            for name, value in accuracies.items():
                writer.add_scalar(f"accuracy/{name}", value, step)
            print(step, f"loss {losses.mean():.3f}", *(f"{k} {v:.2f}" for k, v in accuracies.items()), flush=True)
    writer.close()
    return build(state[0])


def main(cfg: Train) -> dict[str, float]:
    """Trains the model, writes its folder, and gives its accuracies on held-out sentences."""
    check_new(cfg.out)
    world = WORLDS[cfg.world]
    tokenizer = tokenizer_of(cfg, world)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), trained(cfg, world, tokenizer))
    models.save(cfg.out, model, tokenizer)

    card = data.card.measure(jax.jit(models.forward), model, tokenizer, n=cfg.n_eval, seed=cfg.seed + 1, world=world)
    card["n_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(model))
    card["config"] = {name: value for name, value in asdict(cfg).items() if name not in ("run", "out")}
    write_card(cfg.out, card, data.card.render(cfg.name, card, world))
    return card["heldout"]


if __name__ == "__main__":
    which = [word for word in sys.argv[1:2] if not word.startswith("-")] or ["microworld"]
    file = f"configs/train_{which[0].replace('-', '_')}.toml"
    print(main(config.load(Train, file, [word for word in sys.argv[1:] if word not in which])))
