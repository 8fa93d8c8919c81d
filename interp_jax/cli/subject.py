"""The model and the site that a command works on, and the activations there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import models
from interp_jax.progress import Progress

BATCH = 16  # sequences that the model reads at once


@dataclass(frozen=True)
class Subject:
    """A model and one of its sites.

    Attributes:
      name: of the model, as the user gave it.
      model, tokenizer: from `models.load`.
      sites: the catalogue of all sites.
      site: address of one site, such as `"blocks.2.resid_post"`.
      d_in: width of the site.
    """

    name: str
    model: Any
    tokenizer: Any
    sites: Mapping[str, ij.SiteInfo]
    site: str
    d_in: int


def open_model(name: str) -> tuple[Any, Any]:
    """A model that can read text, and its tokenizer.

    Raises:
      FileNotFoundError: there is no such model.
      ValueError: it has no tokenizer.
    """
    # On a CPU, bfloat16 arithmetic is several times slower than float32.
    dtype = "float32" if jax.default_backend() == "cpu" else None
    model, tokenizer = models.load(name, dtype=dtype)
    if tokenizer is None:
        raise ValueError(f"{name}: has no tokenizer.json, which is needed to read text; add it to the folder")
    return model, tokenizer


def load(name: str, site: str | None) -> Subject:
    """Loads a model and checks the site, by default the residual stream after the last block but one.

    Raises:
      FileNotFoundError: there is no such model.
      ValueError: the model has no tokenizer, or the address is not one vector for each token.
    """
    model, tokenizer = open_model(name)
    tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    sites = ij.sites(models.forward, model, tokens)
    if site is None:
        site = f"blocks.{max(0, model.config.n_layers - 2)}.resid_post"
    captured = jax.eval_shape(ij.capture(models.forward, site, output=False), model, tokens)
    shape = captured[site].shape if site in captured else ()
    if len(shape) != 3 or shape[:2] != tokens.shape:
        raise ValueError(
            f"--site {site}: is not one vector for each token; name one layer of a site with the axes batch, position "
            "and d_model, such as blocks.0.resid_post"
        )
    return Subject(name, model, tokenizer, sites, site, shape[-1])


def text_said(text: Path | None) -> str | None:
    """How a dictionary remembers the text that it was trained on: None is the microworld's own."""
    return None if text is None else str(text.resolve())


def activations(subject: Subject, tokens: np.ndarray, mask: np.ndarray, *, shown: bool = True) -> np.ndarray:
    """The values of the site on a text.

    Args:
      subject: the model and the site.
      tokens: int32 `[sequence position]`.
      mask: bool `[sequence position]`, False at padding.
      shown: whether progress is shown.

    Returns:
      float32 `[sequence position d_in]`.
    """
    read = ij.capture(models.forward, subject.site, output=False)
    out = np.empty((*tokens.shape, subject.d_in), np.float32)
    for _, rows in batches("running the model", tokens, shown=shown):
        some, real = (jnp.asarray(part[rows]) for part in (tokens, mask))
        out[rows] = read(subject.model, some, attention_mask=real)[subject.site]
    return out


def batches(what: str, tokens: np.ndarray, *, shown: bool = True) -> Iterator[tuple[int, slice]]:
    """Where each batch of sequences starts, and the rows that it reads, with progress.

    The last batch overlaps with the one before: one shape, one compilation.
    """
    with Progress(what, -(-len(tokens) // BATCH), shown=shown) as progress:
        for start in range(0, len(tokens), BATCH):
            progress.begin(f"{start * tokens.shape[1]:,} tokens")
            at = max(0, min(start, len(tokens) - BATCH))
            yield start, slice(at, at + BATCH)


def logit_effects(subject: Subject, rows: Any) -> np.ndarray | None:
    """What one unit along a direction adds to the logits by the direct path, less its mean over the vocabulary.

    The weights of the final norm are applied, and its scale is left out.

    Args:
      subject: the model and the site.
      rows: the directions, `[n d_in]`.

    Returns:
      float32 `[n d_vocab]`; None where there is no such path, since the site is not as wide as the residual stream, the
      model has no unembedding, or it is an encoder, which has a head between.
    """
    weights = models.weights(subject.model)
    if "W_U" not in weights or subject.d_in != weights["W_U"].shape[0] or not isinstance(subject.model, models.Decoder):
        return None
    rows = np.asarray(rows, np.float32)
    if "ln_final_b" in weights:  # a LayerNorm, which subtracts the mean
        rows = rows - rows.mean(-1, keepdims=True)
    if "ln_final_w" in weights:
        rows = rows * np.asarray(weights["ln_final_w"], np.float32)
    effects = rows @ np.asarray(weights["W_U"], np.float32)
    return effects - effects.mean(-1, keepdims=True)
