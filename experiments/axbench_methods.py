"""Methods of `axbench.py`: what each learns from texts with and without a concept, to detect it and to steer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from axbench_concepts import Turns
import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import dictionaries, lens, models, probes, steering
from interp_jax.steering import axbench

CHUNK = 16  # texts that are read at once


@dataclass(frozen=True)
class Texts:
    """Conversations padded on the left, `[text position]` each."""

    tokens: np.ndarray
    mask: np.ndarray  # False at padding
    answered: np.ndarray  # the last answer's tokens
    counted: np.ndarray  # what is read: all but the first token


@dataclass(frozen=True)
class Method:
    """Something that steers; how it detects, if it does; its maximum on texts that have the concept."""

    steerer: Any
    detect: Callable[[np.ndarray], np.ndarray] | None
    maximum: float
    factors: tuple[float, ...] = axbench.FACTORS


def tokenized(tokenizer: Any, talks: list[Turns], width: int | None = None) -> Texts:
    """Of conversations that end with an answer; of one width, so that few shapes compile."""
    tokens, mask, _ = (np.asarray(x) for x in models.tokenize(tokenizer, talks, chat=True))
    pad = max(0, (width or 0) - tokens.shape[1])
    tokens, mask = (np.pad(x, ((0, 0), (pad, 0))) for x in (tokens, mask))
    asked = [len(tokenizer.encode(talk[:-1], chat=True)) for talk in talks]
    place = np.cumsum(mask, 1) - 1
    return Texts(tokens, mask, mask & (place >= np.array(asked)[:, None]), mask & (place > 0))


def read(model: Any, site: str, texts: Texts) -> np.ndarray:
    """What the site holds, float32 `[text position d_model]`."""
    run, parts = ij.capture(models.forward, site, output=False), []
    for start in range(0, len(texts.tokens), CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), len(texts.tokens) - 1)  # of one size: one program
        acts = run(model, texts.tokens[rows], attention_mask=texts.mask[rows])
        parts.append(np.asarray(acts[site], np.float32))
    return np.concatenate(parts)[: len(texts.tokens)]


def dictionary(cfg: Any, seed: int, x: np.ndarray) -> Any:
    """A TopK dictionary of the activations `[n d_model]`."""
    scaling = dictionaries.Scaling.fit(x)
    new = dictionaries.TopK.create(jax.random.key(seed), x.shape[-1], cfg.d_sae, cfg.k)
    state = dictionaries.TrainState.create(new, n_steps=cfg.n_steps_dictionary)
    batches = map(scaling, dictionaries.shuffled(x, 512, seed=seed))
    return scaling.fold(dictionaries.train(state, batches).dictionary)


def jacobian_lens(model: Any, texts: list[Any], skip_first: int) -> lens.JacobianLens:
    """Of texts `(tokens, mask)` `[text position]`, a batch each."""
    start = lens.JacobianLens.create(model.config.d_model, model.config.n_layers, eps=model.config.norm_eps)
    return lens.fit_jacobian(start, models.forward, model, texts, skip_first=skip_first)


def last(model: Any, tokenizer: Any, site: str, talks: list[Turns]) -> np.ndarray:
    """What the site holds where an answer begins, `[talk d_model]`."""
    tokens, mask, _ = (np.asarray(x) for x in models.tokenize(tokenizer, talks, chat=True))
    return read(model, site, Texts(tokens, mask, mask, mask))[:, -1]


def methods(
    cfg: Any, seed: int, model: Any, site: str, x: Any, texts: Any, ends: Any, shared: Any, words: Any
) -> dict[str, Method]:
    """Every method by its name.

    Args:
      cfg: the settings.
      seed: of what is random.
      model: the model.
      site: address of the residual stream, of one layer.
      x: of the texts that have the concept, and of those that have not: what the site holds, `[text position d_model]`.
      texts: both `Texts`.
      ends: what it holds where an answer begins, if the context asks for the concept and if not, `[talk d_model]`.
      shared: the dictionary and the Jacobian lens.
      words: int32 `[word]`, the tokens whose directions the Jacobian lens gives.
    """
    keys = jax.random.split(jax.random.key(seed), 6)
    has, has_not = (jnp.asarray(one[some.counted]) for one, some in zip(x, texts, strict=True))  # [token d_model]
    means = [
        jnp.stack([row[real].mean(0) for row, real in zip(one, some.counted, strict=True)])
        for one, some in zip(x, texts, strict=True)
    ]
    both = np.concatenate(x).reshape(-1, has.shape[-1])  # with padding, of no weight: one shape for all concepts
    y, counted = np.repeat([1, 0], len(both) // 2), np.concatenate([some.counted for some in texts]).ravel()
    scale = np.sqrt((both[counted] ** 2).mean())
    probe = probes.logistic(both / scale, y, l2=cfg.l2, weights=counted, n_classes=2)
    sae, jacobian = shared
    layer = int(site.split(".")[1])
    mean = steering.difference_of_means(has, has_not)
    vectors = {
        "DiffMean": mean,
        "CAA": steering.difference_of_means(*map(jnp.asarray, ends)),
        "PCA": steering.pca_of_differences(*means),
        "LAT": steering.lat(keys[0], has, has_not),
        "probe": probe.direction,
        "Jacobian lens": lens.directions(jacobian, models.weights(model), words)[layer].sum(0),
        "random": steering.random(keys[1], mean),
        "shuffled labels": steering.shuffled(keys[2], steering.difference_of_means, *means),
    }
    found = {}
    for name, vector in vectors.items():
        vector = np.asarray(vector) / np.linalg.norm(vector)
        steerer = steering.SteeringVector.create(vector, site, how=name)
        states = ends[0] if name == "CAA" else has
        found[name] = Method(steerer, lambda x, v=vector: x @ v, float((states @ vector).max()))

    train = steering.train(models.forward, n_steps=cfg.n_steps, batch_size=cfg.batch_size)
    given, others = ((one.tokens, one.mask, one.answered, one.counted) for one in texts)
    all_texts = [np.concatenate(pair) for pair in zip(given, others, strict=True)]  # as AxBench trains ReFT-r1
    rank1, _ = train(keys[3], model, steering.ReFTr1.create(keys[3], site, has.shape[-1], k=cfg.top), *all_texts)
    found["ReFT-r1"] = Method(rank1, lambda x: np.asarray(rank1.detect(jnp.asarray(x))), float(rank1.detect(has).max()))
    low, _ = train(keys[4], model, steering.LoReFT.create(keys[4], site, has.shape[-1], cfg.rank), *given)
    found["LoReFT"] = Method(low, None, 1.0)

    best, maximum = feature(sae, x, texts)
    steerer = steering.Feature.create(sae, best, maximum, site)

    def active(x: np.ndarray) -> np.ndarray:
        return np.asarray(sae.encode(jnp.asarray(x))[..., best])

    found["feature, clamped"] = Method(steerer, active, 1.0, axbench.CLAMPS)
    row = steering.SteeringVector.create(sae.W_dec[best] / jnp.linalg.norm(sae.W_dec[best]), site, how="decoder")
    size = maximum * float(jnp.linalg.norm(sae.W_dec[best]))
    found["feature, added"] = Method(row, active, size)
    return found


def feature(sae: Any, x: Any, texts: Any) -> tuple[int, float]:
    """The feature whose maximum over a text tells best, of the training texts, whether it has the concept (AxBench's
    SAE-A); and its maximum."""
    largest = [
        np.where(some.counted[..., None], np.asarray(sae.encode(jnp.asarray(one))), 0).max(1)
        for one, some in zip(x, texts, strict=True)
    ]
    has, has_not = largest[0][:, None], largest[1][None]
    auroc = np.mean([((one > has_not[0]) + 0.5 * (one == has_not[0])).mean(0) for one in has[:, 0]], axis=0)
    best = int(auroc.argmax())
    return best, float(largest[0][:, best].max())
