"""Part 1 of `cunningham.py`: tied dictionaries, their baselines, and their scores on tokens held out of training."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from interp_jax import capture, models
from interp_jax import dictionaries as ds
from interp_jax.data import corpus

COLUMNS = ("l0", "fvu", "ce_recovered", "tells")
N_FREQUENT = 10  # tokens that single features are asked to tell

Kinds = dict[str, list[Any]]  # name -> its dictionaries, one from each seed


@dataclass(frozen=True)
class Training:
    seeds: tuple[int, ...]
    n_steps: int
    batch_size: int
    learning_rate: float


def rows(text: corpus.Corpus, which: slice) -> corpus.Corpus:
    """Some of the rows of a text."""
    return replace(text, tokens=text.tokens[which], mask=text.mask[which], real=text.real[which])


def read(model: Any, site: str, text: corpus.Corpus) -> np.ndarray:
    """What the model does at a site at the tokens that count, `[token d_model]`."""
    run = capture(models.forward, site, output=False)
    batches = [text.tokens[i : i + 64] for i in range(0, len(text.tokens), 64)]
    return np.concatenate([run(model, tokens)[site] for tokens in batches])[text.mask]


def trained(cfg: Training, x: np.ndarray, ratio: int, sparsity: float) -> list[ds.ReLU]:
    """Tied dictionaries of `ratio * d_in` features, one from each seed, trained together.

    They are trained on centred activations, as the authors' code can have it. What is given takes the activations as
    they are: the scaling is folded into the weights, and the mean is `b_dec`, which a tied dictionary has not.
    """
    mean, d_in = x.mean(0), x.shape[-1]
    centred = x - mean
    scaling = ds.Scaling.fit(centred)
    new = [ds.Tied.create(jax.random.key(seed), d_in, ratio * d_in) for seed in cfg.seeds]
    start = partial(ds.TrainState.create, n_steps=cfg.n_steps, learning_rate=cfg.learning_rate)
    states = [start(d, sparsity_coefficient=sparsity) for d in new]
    batches = map(scaling, ds.shuffled(centred, cfg.batch_size))
    tied = [scaling.fold(state.dictionary) for state in ds.train_many(states, batches)]
    return [ds.ReLU(d.W_enc, d.b_enc, d.W_dec, jnp.asarray(mean), True, True) for d in tied]


def baselines(x: np.ndarray, seeds: tuple[int, ...], d_sae: int, k: int, n_fit: int) -> Kinds:
    """The five baselines with `k` active features; ICA and NMF are fitted to `n_fit` activations.

    There is one from each seed, where there is a seed and the fit is short.
    """
    keys, d_in, mean = [jax.random.key(seed) for seed in seeds], x.shape[-1], x.mean(0)
    some = x[:: max(1, len(x) // n_fit)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations have to do
        return {
            "neurons": [ds.NeuronBasis.create(keys[0], d_in, k=k, b_dec=mean)],
            "random": [ds.RandomDirections.create(key, d_in, d_sae, k=k, b_dec=mean) for key in keys],
            "PCA": [ds.PCA.create(keys[0], d_in, d_in, x=x, k=k)],
            "ICA": [ds.ICA.create(key, d_in, d_in, x=some, k=k) for key in keys],
            "NMF": [ds.NMF.create(keys[0], d_in, d_in, x=some, k=k, n_steps=200, max_iter=200)],
        }


def tells(dictionary: Any, x: np.ndarray, words: np.ndarray) -> float:
    """How well one feature alone tells a frequent token from the others: the mean AUC over those tokens.

    The feature is chosen on every other activation, and judged on the rest.
    """
    fitted = np.arange(len(x)) % 2 == 0
    frequent = np.argsort(-np.bincount(words))[:N_FREQUENT]
    features = dictionary.encode(x)
    probes = [ds.sparse_probe(features, words == word, fitted, k=(1,))[1] for word in frequent]
    return float(np.mean([probe.auc for probe in probes]))


def scores(model: Any, site: str, kinds: Kinds, held: corpus.Corpus) -> dict[str, dict[str, list[float]]]:
    """By kind and column a number for each dictionary."""
    x, words = read(model, site, held), held.tokens[held.mask]
    evaluate = partial(ds.evaluate, mask=held.real, skip=held.special)
    found = {}
    for name, each in kinds.items():
        numbers = [evaluate(models.forward, site, d, model, held.tokens).numbers() for d in each]
        found[name] = {column: [one[column] for one in numbers] for column in ("l0", "fvu", "ce_recovered")}
        found[name]["tells"] = [tells(d, x, words) for d in each]
    return found
