"""Trains the encoder shipped as `microworld-bert` by masked language modelling, and writes its folder.

`python experiments/train_bert.py [--n-steps 2000] [--out DIR]`. The texts: WikiText-2's validation and test files and
Universal Dependencies English EWT's dev file, in `$INTERP_JAX_DATA`. A killed run goes on and ends the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
import json
import os
from pathlib import Path
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tensorboard.summary import Writer
from train_microworld import optimizer

from interp_jax import config, models
from interp_jax.data import masked
from interp_jax.io import orbax


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


def scores(params: list, build: Callable, seen: jax.Array, told: jax.Array, tokens: jax.Array) -> tuple:
    """Cross-entropy in nats and accuracy, of the tokens to tell."""
    logits = models.forward(build(params), seen, attention_mask=tokens != masked.PAD)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    right = (logits.argmax(-1) == tokens).astype(jnp.float32)
    return tuple(jnp.where(told, x, 0).sum() / told.sum() for x in (cross_entropy, right))


def main(cfg: Train) -> dict[str, float]:
    if cfg.out.exists():
        raise FileExistsError(f"{cfg.out}: is there already; remove it or give another --out")
    lines = list(texts(Path(os.environ["INTERP_JAX_DATA"])))
    cfg.run.mkdir(parents=True, exist_ok=True)
    if not (cfg.run / "tokenizer.json").exists():  # training pieces breaks ties at random
        masked.wordpieces(lines, cfg.model.d_vocab).save(str(cfg.run / "tokenizer.json"))
    tokenizer = models.Tokenizer.from_folder(cfg.run)
    tokenizer.config.update(masked.CONFIG)
    rows = masked.rows(tokenizer.backend, lines, cfg.n_positions)
    heldout, train = split(rows)
    model = models.Encoder.create(jax.random.key(cfg.seed), cfg.model)
    paths, structure = jax.tree_util.tree_flatten_with_path(model)
    build, params = partial(jax.tree.unflatten, structure), [leaf for _, leaf in paths]
    update = optimizer(cfg, [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in paths])

    @partial(jax.jit, donate_argnums=0)
    def train_steps(state: tuple, batches: tuple) -> tuple:
        def train_step(state: tuple, batch: tuple) -> tuple:
            params, update_state = state
            told, gradient = jax.value_and_grad(scores, has_aux=True)(params, build, *batch)
            change, update_state = update.update(gradient, update_state, params)
            return (optax.apply_updates(params, change), update_state), told

        return jax.lax.scan(train_step, state, batches)

    def batch(tokens: np.ndarray, *seed: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng([cfg.seed, *seed])
        chosen = rng.choice(tokens, cfg.batch_size)
        return (*masked.hide(rng, chosen, cfg.model.d_vocab), chosen)

    def measure(params: list) -> dict[str, float]:
        told = np.array([evaluate(params, build, *batch(heldout, 0, i)) for i in range(20)]).mean(0)
        return dict(zip(("cross_entropy", "accuracy"), told.tolist(), strict=True))

    evaluate = jax.jit(scores, static_argnums=1)
    state, step = (params, update.init(params)), 0
    if (cfg.run / "checkpoint").exists():
        saved, metadata = orbax.load(cfg.run / "checkpoint")
        state, step = jax.tree.unflatten(jax.tree.structure(state), [saved[k] for k in sorted(saved)]), metadata["step"]
    writer = Writer(str(cfg.run / "tensorboard"))
    while step < cfg.n_steps:
        batches = [batch(train, 1, step + i) for i in range(cfg.steps_per_call)]
        state, told = train_steps(state, tuple(np.stack(column) for column in zip(*batches, strict=True)))
        step += cfg.steps_per_call
        writer.add_scalar("loss", float(told[0].mean()), step)
        if step % cfg.checkpoint_every == 0:
            leaves = {f"{i:04}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
            orbax.save(cfg.run / "checkpoint", leaves, {"step": step})
            print(step, f"loss {told[0].mean():.3f}", measure(state[0]), flush=True)
    writer.close()

    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), build(state[0]))
    models.save(cfg.out, model, tokenizer)
    card = measure(jax.tree.leaves(model)) | masked.baselines(train, heldout)
    card["n_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(model))
    card["n_tokens"] = int((rows >= len(masked.SPECIAL)).sum())
    card["config"] = {name: value for name, value in asdict(cfg).items() if name not in ("run", "out")}
    (cfg.out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (cfg.out / "README.md").write_text(masked.render(card))
    return card


if __name__ == "__main__":
    print(main(config.load(Train, "configs/train_bert.toml")))
