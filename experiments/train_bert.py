"""Trains the encoder that is shipped as `microworld-bert`, by masked language modelling, and writes its folder.

Some tokens of a sentence are hidden, and the model tells what they were from both sides (Devlin et al. 2018,
https://arxiv.org/abs/1810.04805). The texts: WikiText-2's validation and test files and Universal Dependencies English
EWT's dev file, in `$INTERP_JAX_DATA`.

    python experiments/train_bert.py [--n-steps 2400] [--out DIR]

It prints the loss, and cross-entropy and accuracy on held-out rows at each checkpoint. A killed run goes on from its
last checkpoint and ends with the same weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
import os
from pathlib import Path
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tensorboard.summary import Writer
from training import check_new, compiled_steps, last_checkpoint, optimizer, save_checkpoint, taken_apart, write_card

from interp_jax import config, models
from interp_jax.data import masked

Measure = Callable[[list], dict[str, float]]  # a model's arrays -> its scores on held-out rows


@dataclass(frozen=True)
class Train:
    name: str
    version: str
    seed: int
    n_steps: int
    batch_size: int
    n_positions: int
    learning_rate: float  # of Muon, for the matrices of the blocks
    adam_learning_rate: float  # of AdamW, for the rest
    weight_decay: float
    warmup_steps: int
    steps_per_call: int
    checkpoint_every: int
    run: Path
    out: Path
    model: models.Config


def texts(folder: Path) -> Iterator[str]:
    """The files' lines, and sentences."""
    for file in ("wikitext2/valid.txt", "wikitext2/test.txt"):
        yield from (folder / file).read_text("utf-8").replace("<unk>", "[UNK]").splitlines()
    yield from re.findall("^# text = (.*)$", (folder / "ud-ewt/en_ewt-ud-dev.conllu").read_text("utf-8"), re.MULTILINE)


def split(rows: np.ndarray) -> list[np.ndarray]:
    """One row in twenty, held out, and the others."""
    return np.split(np.random.default_rng(0).permutation(rows), [len(rows) // 20])


def hidden(cfg: Train, rows: np.ndarray, *seed: int) -> tuple[np.ndarray, ...]:
    """A batch: tokens of which some are hidden, which are to be told, and the tokens as they were."""
    rng = np.random.default_rng([cfg.seed, *seed])
    chosen = rng.choice(rows, cfg.batch_size)
    return (*masked.hide(rng, chosen, cfg.model.d_vocab), chosen)


def scores(params: list, seen: jax.Array, told: jax.Array, tokens: jax.Array, build: Callable) -> tuple:
    """Cross-entropy in nats and accuracy, of the tokens to tell."""
    logits = models.forward(build(params), seen, attention_mask=tokens != masked.PAD)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    right = (logits.argmax(-1) == tokens).astype(jnp.float32)
    return tuple(jnp.where(told, x, 0).sum() / told.sum() for x in (cross_entropy, right))


def tokenizer_of(cfg: Train, lines: list[str]) -> models.Tokenizer:
    """The run's tokenizer, trained once, since training pieces breaks ties at random."""
    cfg.run.mkdir(parents=True, exist_ok=True)
    if not (cfg.run / "tokenizer.json").exists():
        masked.wordpieces(lines, cfg.model.d_vocab).save(str(cfg.run / "tokenizer.json"))
    tokenizer = models.Tokenizer.from_folder(cfg.run)
    tokenizer.config.update(masked.CONFIG)
    return tokenizer


def trained(cfg: Train, train: np.ndarray, heldout: np.ndarray) -> tuple[models.Encoder, Measure]:
    """The model after its last step, and what measures such a model; what was done before is not done again."""
    params, build, names = taken_apart(models.Encoder.create(jax.random.key(cfg.seed), cfg.model))
    update = optimizer(cfg, names)
    score = partial(scores, build=build)
    steps, evaluate = compiled_steps(jax.value_and_grad(score, has_aux=True), update), jax.jit(score)

    def measure(params: list) -> dict[str, float]:
        told = np.array([evaluate(params, *hidden(cfg, heldout, 0, i)) for i in range(20)]).mean(0)
        return dict(zip(("cross_entropy", "accuracy"), told.tolist(), strict=True))

    state, step = last_checkpoint(cfg.run, (params, update.init(params)))
    writer = Writer(str(cfg.run / "tensorboard"))
    while step < cfg.n_steps:
        batches = [hidden(cfg, train, 1, step + i) for i in range(cfg.steps_per_call)]
        state, told = steps(state, tuple(np.stack(column) for column in zip(*batches, strict=True)))
        step += cfg.steps_per_call
        writer.add_scalar("loss", float(told[0].mean()), step)
        if step % cfg.checkpoint_every == 0:
            save_checkpoint(cfg.run, state, step)
            print(step, f"loss {told[0].mean():.3f}", measure(state[0]), flush=True)
    writer.close()
    return build(state[0]), measure


def main(cfg: Train) -> dict[str, Any]:
    """Trains the model, writes its folder, and gives its card."""
    check_new(cfg.out)
    lines = list(texts(Path(os.environ["INTERP_JAX_DATA"])))
    tokenizer = tokenizer_of(cfg, lines)
    rows = masked.rows(tokenizer.backend, lines, cfg.n_positions)
    heldout, train = split(rows)
    model, measure = trained(cfg, train, heldout)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model)
    models.save(cfg.out, model, tokenizer)

    card: dict[str, Any] = measure(jax.tree.leaves(model)) | masked.baselines(train, heldout)
    card["n_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(model))
    card["n_tokens"] = int((rows >= len(masked.SPECIAL)).sum())
    card["config"] = {name: value for name, value in asdict(cfg).items() if name not in ("run", "out")}
    write_card(cfg.out, card, masked.render(card))
    return card


if __name__ == "__main__":
    print(main(config.load(Train, "configs/train_bert.toml")))
