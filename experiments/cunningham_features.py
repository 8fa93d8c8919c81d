"""The part of `cunningham.py` about indirect objects: how many features carry what makes a model answer another name.

Pairs `when Mary and John went to the park , John gave a ring to` and the same with another indirect object; features
of the residual stream are moved to their values in the other sentence, at all positions, in greedy order, and
KL(patched || other) is measured at the answer. Beside PCA; and what one feature of a dictionary is.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import capture, data, dictionaries, intervene, metrics, models
from interp_jax.data import corpus
from interp_jax.interventions import at, scale

SHARES = (0.9, 0.75, 0.5, 0.25, 0.1)


@dataclass(frozen=True)
class Training:
    seeds: tuple[int, ...]
    n_steps: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Indirect:
    layer: int
    ratio: int
    sparsities: tuple[float, ...]
    n_tokens: int
    n_pairs: int
    n_patched: int


def read(model: Any, site: str, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A site at the tokens that count, `[token d_model]`."""
    run = capture(models.forward, site, output=False)
    return np.concatenate([run(model, tokens[i : i + 64])[site] for i in range(0, len(tokens), 64)])[mask]


def trained(cfg: Training, x: np.ndarray, ratio: int, sparsity: float) -> list:
    """Tied dictionaries from each seed, of centred activations as the authors' code can have it; b_dec is the mean."""
    mean, d_in = x.mean(0), x.shape[-1]
    scaling = dictionaries.Scaling.fit(x - mean)
    new = [dictionaries.Tied.create(jax.random.key(seed), d_in, ratio * d_in) for seed in cfg.seeds]
    start = partial(dictionaries.TrainState.create, n_steps=cfg.n_steps, learning_rate=cfg.learning_rate)
    batches = map(scaling, dictionaries.shuffled(x - mean, cfg.batch_size))
    states = dictionaries.train_many([start(d, sparsity_coefficient=sparsity) for d in new], batches)
    tied = [scaling.fold(state.dictionary) for state in states]
    return [dictionaries.ReLU(d.W_enc, d.b_enc, d.W_dec, jnp.asarray(mean), True, True) for d in tied]


def fewest(runs: list[list[float]], share: float) -> list[float]:
    """How many features bring the KL below a share of what it was, by run; inf where those patched do not."""
    below = np.asarray(runs) < share * np.asarray(runs)[:, :1]
    return np.where(below.any(1), below.argmax(1), np.inf).tolist()


def curves(cfg: Indirect, training: Training) -> dict[str, dict[str, list]]:
    """By dictionary, KL in nats after each feature, `own` and `shared` `[seed n_patched + 1]`, and with all of them."""
    model, tokenizer = models.load("microworld", dtype="float32")
    text = corpus.read(tokenizer, None, n_tokens=cfg.n_tokens, n_positions=64, seed=0)
    site = f"blocks.{cfg.layer}.resid_post"
    x = read(model, site, text.tokens, text.mask)
    task = data.tasks.ioi(jax.random.key(0), tokenizer, n=cfg.n_pairs)
    names, rng = np.asarray([task.answers, task.distractors]), np.random.default_rng(0)
    others = jnp.asarray([rng.choice(np.setdiff1d(names, pair)) for pair in names.T])
    pairs = task.clean, task.clean.at[jnp.arange(cfg.n_pairs), task.columns["io"]].set(others)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    logits, y = f(model, pairs[0]), f(model, pairs[1])
    right = [float((a.argmax(-1) == b).mean()) for a, b in ((logits, task.answers), (y, others))]
    print(f"\nmicroworld, {site}, {cfg.n_pairs} pairs, right answers: {right[0]:.0%} and {right[1]:.0%}")

    kinds = {f"tied {sparsity}": trained(training, x, cfg.ratio, sparsity) for sparsity in cfg.sparsities}
    kinds["PCA"] = [dictionaries.PCA.create(jax.random.key(0), x.shape[-1], x.shape[-1], x=x)]
    found = {}
    for name, each in kinds.items():
        found[name] = {"l0": [float((np.asarray(d.encode(x[:4096])) != 0).sum(-1).mean()) for d in each]}
    for kind in ("own", "shared"):
        search = partial(dictionaries.patch_features, f, lambda z: metrics.kl(z)(y), site)
        patch = jax.jit(partial(search, n_features=cfg.n_patched, shared=kind == "shared"))
        for name, each in kinds.items():
            runs = [patch(dictionary, model, *pairs) for dictionary in each]
            found[name][kind] = [run.scores.mean(-1).tolist() for run in runs]
            found[name]["all"] = [float(run.complete.mean()) for run in runs]
    return found


def cell(values: list[float]) -> str:
    return f"{np.mean(values):7.2f} ±{np.std(values):4.2f}" if np.isfinite(values).all() else f"{'more':>13}"


def show(found: dict[str, dict[str, list]]) -> None:
    shown = [n for n in (0, 1, 2, 4, 8, 12, 16, 24, 32) if n < len(found["PCA"]["own"][0])]
    header = [*shown, "all", *(f"to {share:.0%}" for share in SHARES)]
    for kind, about in (("own", "each pair has its own features"), ("shared", "all pairs share them")):
        print(f"\nKL in nats after so many features, {about}; then how many bring it below a share of what it was")
        print(f"{'':10}{'l0':>6}" + "".join(f"{column:>13}" for column in header))
        needs = {name: [fewest(one[kind], share) for share in SHARES] for name, one in found.items()}
        for name, one in found.items():
            columns = [*np.transpose(one[kind])[shown], one["all"], *needs[name]]
            print(f"{name:10}{np.mean(one['l0']):6.1f}" + "".join(map(cell, columns)))
        for name in list(found)[:-1]:
            both = zip(SHARES, needs[name], needs["PCA"], strict=True)
            fewer = [f"{share:.0%}" for share, ours, pcas in both if np.mean(ours) < np.mean(pcas)]
            print(f"{name} needs fewer features than PCA to {', '.join(fewer) or 'none of these shares'}")


def feature(model: Any, tokenizer: Any, site: str, d: Any, tokens: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Of the features that fire on one token in 200 or more, that which is most of all one word's; and what it does."""
    c, words = np.asarray(d.encode(read(model, site, tokens, mask))), tokens[mask]
    shares = np.stack([c[words == word].sum(0) for word in range(tokenizer.d_vocab)]) / np.maximum(c.sum(0), 1e-9)
    density = (c > 0).mean(0)
    i = int(np.where(density > 1 / 200, shares.max(0), 0).argmax())
    fires = np.zeros(mask.shape, bool)
    fires[mask] = c[:, i] > 0
    rows = np.flatnonzero(fires.any(1))[:16]
    off = dictionaries.splice(d, edit=at(scale(0.0), feature=i))
    without = intervene(models.forward, {site: off})(model, tokens[rows])
    change = np.asarray(without - models.forward(model, tokens[rows]))[fires[rows]].mean(0)
    strings, order = [repr(s) for s in tokenizer.to_str_tokens(range(tokenizer.d_vocab))], np.argsort(change)
    told = {"feature": i, "site": site, "density": float(density[i])}
    told["tokens"] = {strings[t]: float(shares[t, i]) for t in np.argsort(-shares[:, i])[:10]}
    return told | {"logits": {strings[t]: float(change[t]) for t in [*order[:7], *order[-7:]]}}
