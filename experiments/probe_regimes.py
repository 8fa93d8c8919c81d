"""With few, unequal or wrong labels, is it better to probe a dictionary's features than activations?

As sae-probes asks (Kantamneni et al. 2025, https://arxiv.org/abs/2502.16681): AUC on held-out texts of a logistic
regression on activations, whose penalty is chosen by held-out labels of the same quality, beside regressions on the k
features of a dictionary that tell the classes apart best. Scarce labels, unequal classes, and labels of which a share
is flipped. All regressions on activations are one compiled call.

    python experiments/probe_regimes.py [--model SmolLM2.gguf --data sst2] [--out DIR]

Two minutes on two cores. A TopK dictionary is trained first, on the same layer's activations of the microworld's text,
or of other sentences of SST-2.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import labelled
import numpy as np
import plotly.graph_objects as go
import runs

import interp_jax as ij
from interp_jax import config, data, dictionaries, models, probes


@dataclass(frozen=True)
class Regimes:
    model: str
    layer: int  # of resid_post; the last named position is probed
    n_train: int
    n_test: int
    scarce: tuple[int, ...]  # labels, as many of each class as there are by chance
    shares: tuple[float, ...]  # of positive labels, among n_unequal
    n_unequal: int
    flipped: tuple[float, ...]  # share of wrong labels, among all
    ks: tuple[int, ...]  # features
    l2s: tuple[float, ...]
    d_sae: int
    n_active: int
    n_tokens: int  # to train the dictionary on
    n_steps: int
    batch_size: int  # texts
    seeds: tuple[int, ...]
    out: Path
    data: Path | None = None  # the folder of SST-2; by default the microworld's reviews


def learned(cfg: Regimes, model, tokenizer):
    """A dictionary of the layer, the scale of its activations, and the share of their variance that it explains."""
    site = f"blocks.{cfg.layer}.resid_post"
    if cfg.data is None:
        text = data.corpus.read(tokenizer, n_tokens=cfg.n_tokens, seed=1)
        tokens, mask = text.tokens, text.mask
    else:
        texts = data.sst2.read(cfg.data / "train.tsv", least=5, most=20).sentences[::-1]
        tokens, mask = data.corpus.pack(tokenizer, texts, n_tokens=cfg.n_tokens, n_positions=32)
    read = jax.jit(ij.capture(models.forward, site, output=False))
    parts = [slice(i, i + 32) for i in range(0, len(tokens), 32)]
    activations = np.concatenate([np.asarray(read(model, tokens[i])[site], np.float32)[mask[i]] for i in parts])
    scaling = dictionaries.Scaling.fit(activations)
    x = scaling(jnp.asarray(activations))
    start = dictionaries.TopK.create(jax.random.key(0), x.shape[1], cfg.d_sae, cfg.n_active, b_dec=x.mean(0))
    state = dictionaries.TrainState.create(start, cfg.n_steps)
    batches = (part for epoch in range(1000) for part in dictionaries.shuffled(x, 512, seed=epoch))
    state = dictionaries.train(state, (part for part, _ in zip(batches, range(cfg.n_steps), strict=False)))
    some = x[:4096]
    explained = 1 - float((some - state.dictionary(some)).var(0).sum() / some.var(0).sum())
    return state.dictionary, scaling, explained


def regimes(cfg: Regimes, y: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name -> labels and which of them are there, `[example]`; classes are never empty."""
    found, order = {}, rng.permutation(len(y))
    ranked = np.argsort(order)
    for n in cfg.scarce:
        first = np.concatenate([np.flatnonzero(y == k)[np.argsort(ranked[y == k])][: n // 2] for k in (0, 1)])
        found[f"{n} labels"] = y, np.isin(np.arange(len(y)), first)
    for share in cfg.shares:
        sizes = (cfg.n_unequal - round(share * cfg.n_unequal), round(share * cfg.n_unequal))
        some = np.concatenate([rng.permutation(np.flatnonzero(y == k))[: sizes[k]] for k in (0, 1)])
        found[f"{share:.0%} positive"] = y, np.isin(np.arange(len(y)), some)
    for share in cfg.flipped:
        found[f"{share:.0%} flipped"] = np.where(rng.random(len(y)) < share, 1 - y, y), np.ones(len(y), bool)
    return found


def study_of(cfg: Regimes, x: np.ndarray, features: np.ndarray, y: np.ndarray, held_out: np.ndarray, seed: int) -> dict:
    """method -> AUC on held-out texts `[regime]`."""
    train, test, labels = ~held_out, held_out, y[~held_out]
    every = regimes(cfg, labels, np.random.default_rng(seed))
    told, there = (np.stack(parts) for parts in zip(*every.values(), strict=True))  # [regime example]
    places = np.broadcast_to(x[train], (len(every), *x[train].shape))
    # A third of what labels there are chooses the penalty, of each class its share.
    choosing = np.zeros_like(there)
    for regime in range(len(every)):
        for k in (0, 1):
            mine = np.flatnonzero(there[regime] & (told[regime] == k))
            choosing[regime, mine[::3][: len(mine) - 1] if len(mine) > 1 else mine[:0]] = True
    both = [np.isin((0, 1), told[r][choosing[r] & there[r]]).all() for r in range(len(every))]
    choosing &= np.array(both)[:, None]
    l2 = probes.path(places, told, cfg.l2s, held_out=choosing, weights=there, n_classes=2).l2
    final = probes.logistic(places, told, l2=l2, weights=there, n_classes=2)
    tests = np.broadcast_to(x[test], (len(every), *x[test].shape))
    found = {"activations": np.asarray(probes.scores(final, tests, y[test]).auc)}
    for k in cfg.ks:
        found[f"{k} features"] = np.zeros(len(every))
    for regime in range(len(every)):
        rows = np.flatnonzero(train)[there[regime]]
        both_sides = np.concatenate([features[rows], features[test]])
        known = np.concatenate([told[regime][there[regime]], y[test]])
        split = np.arange(len(known)) < len(rows)
        for k, probe in dictionaries.sparse_probe(both_sides, known, split, k=cfg.ks).items():
            found[f"{k} features"][regime] = probe.auc
    return {"names": np.array(list(every)), "auc": found}


def main(cfg: Regimes) -> dict:
    """The names of the regimes, and of each method the AUC `[seed regime]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    dictionary, scaling, explained = learned(cfg, model, tokenizer)
    names: list[str] = []

    def study(seed: int, begin) -> dict:
        some, held_out = labelled.texts(tokenizer, cfg.data, cfg.n_train, cfg.n_test, seed)
        acts = labelled.activations(model, some, ("blocks.resid_post",), cfg.batch_size, begin)
        x = np.asarray(scaling(jnp.asarray(acts["blocks.resid_post"][cfg.layer, -1])))
        begin("probes")
        found = study_of(cfg, x, np.asarray(dictionary.encode(jnp.asarray(x))), some.labels, held_out, seed)
        names[:] = found["names"].tolist()
        return found["auc"]

    def keep(found: dict) -> None:
        runs.write("probe_regimes", cfg, {"regimes": names, "auc": found})

    n_steps = labelled.n_batches(cfg.n_train + cfg.n_test, cfg.batch_size) + 1
    found = runs.each(cfg.seeds, n_steps, "texts, seed", study, keep)
    rows = [
        {"labels": name} | {method: runs.cell(auc[:, i], 3) for method, auc in found.items()}
        for i, name in enumerate(names)
    ]
    figure = go.Figure(layout={"title": f"Held-out AUC of probes, {cfg.model}, after layer {cfg.layer}"})
    for method, auc in found.items():
        runs.curve(figure, auc, x=names, name=method, mode="markers")
    figure.update_layout(yaxis_title="AUC")
    about = (
        f"{cfg.model}, {'SST-2' if cfg.data else 'reviews of the microworld'}, after layer {cfg.layer}: {cfg.n_test} "
        f"held-out texts, dictionary of {cfg.d_sae} features that explains "
        f"{explained:.2f} of the variance, seeds {list(cfg.seeds)}, AUC, mean ± spread"
    )
    numbers = {"regimes": names, "auc": found}
    runs.finish("probe_regimes", cfg, numbers, figure, about, runs.table(rows), story(found))
    return numbers


def story(found: dict) -> str:
    base = found["activations"].mean(0)
    best = max((name for name in found if name != "activations"), key=lambda name: found[name].mean())
    ahead = int((found[best].mean(0) > base).sum())
    return (
        f"The best of the dictionary's probes, on {best}, has a mean AUC of {found[best].mean():.3f} where activations "
        f"have {base.mean():.3f}; it is ahead in {ahead} of {len(base)} regimes."
    )


if __name__ == "__main__":
    main(config.load(Regimes, "configs/probe_regimes.toml"))
