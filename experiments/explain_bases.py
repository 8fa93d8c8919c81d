"""Units to be explained, by `explain_features.py` and `explain_scaling.py`: of five bases of a layer, and planted ones.

The bases are a trained TopK dictionary, neurons of the stream, random directions, PCA and ICA, each with k active units
a token, so that none is told by being denser. Planted units are on a text whose words stand in an order by chance: a
unit of tokens fires on three words, a contextual one a few tokens after three, which no word there or beside tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
import warnings

import depths
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning

import interp_jax as ij
from interp_jax import dictionaries, explain, models
from interp_jax.data import corpus

FILES = {"tinystories": "stories.txt", "wikitext2": "valid.txt"}
BASES = ("dictionary", "neurons", "random", "PCA", "ICA")
FIRST, LAST = 3, 5  # tokens from a word to where a contextual unit fires
N_WORDS = 3
AXES = ("batch", "position", "d_model")


@dataclass(frozen=True)
class Training:
    expansion: int  # features a dimension
    k: int  # active units a token, of every basis
    n_steps: int
    batch_size: int
    n_fit: int  # activations that ICA is fitted to


class Read(NamedTuple):
    """A model, its text, and the text of every token."""

    model: Any
    text: corpus.Corpus
    strings: list[str]


def read(name: str, text: str, n_tokens: int, n_positions: int, seed: int) -> Read:
    """A model with its own text, or with one of shared/data."""
    model, tokenizer = models.load(name, dtype="float32", scan_layers=None)
    file = None if name.startswith("microworld") else depths.data(text) / FILES[text]
    width = min(n_positions, model.config.n_ctx)
    some = corpus.read(tokenizer, file, n_tokens=n_tokens, n_positions=width, seed=seed)
    return Read(model, some, tokenizer.to_str_tokens(range(tokenizer.d_vocab)))


def activations(of: Read, layers: Sequence[int]) -> dict[int, np.ndarray]:
    """The stream after each layer at all tokens that count, `[token d_model]`."""
    run = ij.capture(models.hidden, {f"blocks.{layer}.resid_post": None for layer in layers}, output=False)
    parts: list[dict[str, Any]] = []
    for start in range(0, len(of.text.tokens), 16):
        rows = np.minimum(np.arange(start, start + 16), len(of.text.tokens) - 1)
        new = slice(0, min(16, len(of.text.tokens) - start))
        acts = run(of.model, of.text.tokens[rows], attention_mask=of.text.real[rows])
        parts.append({name: np.asarray(x)[new][of.text.mask[rows][new]] for name, x in acts.items()})
    return {layer: np.concatenate([part[f"blocks.{layer}.resid_post"] for part in parts]) for layer in layers}


def trained(cfg: Training, x: np.ndarray, seed: int) -> dictionaries.TopK:
    """A TopK dictionary for activations `[token d_model]`."""
    d, scaling = x.shape[-1], dictionaries.Scaling.fit(x)
    new = dictionaries.TopK.create(jax.random.key(seed), d, cfg.expansion * d, cfg.k, b_dec=scaling(x.mean(0)))
    batches = dictionaries.shuffled(x, min(cfg.batch_size, len(x)), seed=seed).map(scaling)
    return scaling.fold(dictionaries.train(dictionaries.TrainState.create(new, cfg.n_steps), batches).dictionary)


def bases(cfg: Training, x: np.ndarray, seed: int) -> dict[str, Any]:
    """The five bases for activations `[token d_model]`."""
    key, d, mean = jax.random.key(seed), x.shape[-1], x.mean(0)
    some = x[:: max(1, len(x) // cfg.n_fit)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations have to do
        return {
            "dictionary": trained(cfg, x, seed),
            "neurons": dictionaries.NeuronBasis.create(key, d, k=cfg.k, b_dec=mean),
            "random": dictionaries.RandomDirections.create(key, d, d, k=cfg.k, b_dec=mean),
            "PCA": dictionaries.PCA.create(key, d, d, x=x, k=cfg.k),
            "ICA": dictionaries.ICA.create(key, d, d, x=some, k=cfg.k),
        }


def record(of: Read, where: Mapping[str, Any]) -> dict[str, explain.Records]:
    """Records of several bases in one pass: `"PCA 3"` is the address of that basis after layer 3."""
    layers = sorted({int(name.split()[1]) for name in where})
    addresses = {layer: f"blocks.{layer}.resid_post" for layer in layers}

    def f(model: Any, tokens: Any, attention_mask: Any = None) -> Any:
        acts = ij.capture(models.hidden, tuple(addresses.values()), output=False)(
            model, tokens, attention_mask=attention_mask
        )
        out = [ij.site(acts[addresses[int(name.split()[1])]], site_of(name), axes=AXES) for name in where]
        return sum(x.mean() for x in out)

    run = explain.record(f, {site_of(name): basis for name, basis in where.items()}, shown=True)
    found = run(of.model, of.text.tokens, mask=of.text.real, skip=of.text.special)
    return {name: found[site_of(name)] for name in where}


def site_of(name: str) -> str:
    return name.replace(" ", "_")


def planted(of: Read, n: int, seed: int) -> dict[str, explain.Records]:
    """Records of `n` units of tokens and of `n` contextual ones, on the words of the text in an order by chance."""
    rng = np.random.default_rng(seed)
    tokens, mask = of.text.tokens.copy(), of.text.mask
    place = explain.words(tokens, mask, of.strings).ordinal[mask]
    words = np.split(tokens[mask], np.flatnonzero(np.diff(place)) + 1)
    tokens[mask] = np.concatenate([words[i] for i in rng.permutation(len(words))])
    counts = np.bincount(np.array([word[0] for word in words if len(word) == 1]), minlength=len(of.strings))
    letters = np.array([text.strip().isalpha() for text in of.strings])
    some = np.argsort(-np.where(letters, counts, 0))[: 8 * n]  # frequent words of one token, none of two units
    table = np.zeros((len(of.strings), n), np.float32)
    for unit, words in enumerate(rng.permutation(some)[: N_WORDS * n].reshape(n, N_WORDS)):
        table[words, unit] = rng.uniform(1, 3, N_WORDS)
    later = rng.integers(FIRST, LAST + 1, n)

    def f(table: Any, tokens: Any) -> Any:
        x = table[tokens]
        moved = jnp.stack([jnp.roll(x[..., i], by, axis=1).at[:, :by].set(0) for i, by in enumerate(later)], axis=-1)
        return ij.site(x, "tokens", axes=AXES).sum() + ij.site(moved, "context", axes=AXES).sum()

    return explain.record(f, {"tokens": None, "context": None})(
        jnp.asarray(table), tokens, mask=of.text.real, skip=of.text.special
    )


def drawn(records: explain.Records, strings: list[str], n: int, least: int, seed: int) -> dict[int, explain.Evidence]:
    """The evidence of `n` units by chance of those that fire often enough, and fewer where there are not as many."""
    often = np.flatnonzero(records.counts >= least)
    units = np.random.default_rng(seed).permutation(often)[:n]
    return {int(unit): explain.gather(records, int(unit), strings, least=least) for unit in units}


def mean(values: np.ndarray) -> float:
    """Over the units for which a score is defined; nan without any."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")
