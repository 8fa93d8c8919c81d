"""Dose and response: what an edit at several strengths does to a behaviour, and what it costs in perplexity.

What the experiments that steer share. Perplexity is that of texts which have nothing to do with the behaviour: of a
microworld's model, of the words that its texts determine; of any other, of WikiText-2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import random
from typing import Any

import depths
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import models
from interp_jax.data import corpus
from interp_jax.data.worlds import WORLDS

Edits = Mapping[str, Any]
Measure = Callable[[Edits], Any]  # edits by address, as `ij.intervene` takes them -> a number
SMALLEST = 0.02  # what is no rise and no fall, of the whole range of a response


@dataclass(frozen=True)
class Texts:
    """Texts padded on the right, and which of their tokens are to be predicted; all bool or int `[text position]`."""

    tokens: np.ndarray
    mask: np.ndarray
    predicted: np.ndarray


def texts(name: str, tokenizer: Any, n: int, *, n_positions: int = 64, without: Sequence[str] = ()) -> Texts:
    """Texts to measure perplexity on: `n` of the named microworld, but phenomena in `without`; or of WikiText-2."""
    if name not in WORLDS:
        file = depths.data("wikitext2") / "valid.txt"
        read = corpus.read(tokenizer, file, n_tokens=n * n_positions + 16 * n_positions, n_positions=n_positions)
        tokens, real = read.tokens[:n], read.real[:n]
        return Texts(tokens, real, real & (np.arange(tokens.shape[1]) > 0))
    rng, world = random.Random(0), WORLDS[name]
    kept = {phenomenon: 1.0 for phenomenon in world.phenomena if phenomenon not in without}
    stream = world.examples(rng, kept, "heldout")
    some = [example for _, example in zip(range(n), stream, strict=False)]
    tokens, mask = corpus.pack(
        tokenizer, [" ".join(example.words) for example in some], n_tokens=10**9, n_positions=10**4
    )
    predicted = np.zeros(tokens.shape, bool)
    for row, example in zip(predicted, some, strict=True):
        row[[1 + index for index in example.determined]] = True
    return Texts(tokens, mask, predicted)


def perplexity(model: Any, some: Texts) -> Measure:
    """Measures exp of the mean loss of the tokens to be predicted, in nats, under edits."""

    def measure(edits: Edits) -> float:
        logits = ij.intervene(models.forward, edits)(model, some.tokens, attention_mask=some.mask)
        return float(_perplexity(logits, some.tokens, some.predicted))

    return measure


@jax.jit
def _perplexity(logits: jax.Array, tokens: jax.Array, predicted: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1].astype(jnp.float32), tokens[:, 1:])
    counted = predicted[:, 1:]
    return jnp.exp(jnp.where(counted, losses, 0).sum() / counted.sum().astype(jnp.float32))


def response(
    strengths: Sequence[float], edits: Callable[[jax.Array], Edits], measures: Mapping[str, Measure]
) -> dict[str, np.ndarray]:
    """Each measure at each strength, by name `[strength]`; a strength is an argument of what is compiled."""
    return {
        name: np.array([float(measure(edits(jnp.float32(strength)))) for strength in strengths])
        for name, measure in measures.items()
    }


def rising(strengths: Sequence[float], values: Any) -> tuple[float, float, float | None]:
    """Where a response `[run strength]` rises, and where it turns over, by its mean over runs.

    Returns:
      the first and the last strength of the longest range over which every step is up, without flat ends; and the
      first strength after it at which the response has fallen again, None if it does not. What is less than 2 % of the
      whole range of the response is flat.
    """
    mean = np.mean(values, axis=0)
    flat = SMALLEST * max(float(np.ptp(mean)), 1e-9)
    up = np.flatnonzero(np.diff(mean) > 0)
    if not len(up):
        return float(strengths[0]), float(strengths[0]), None
    longest = max(np.split(up, np.flatnonzero(np.diff(up) > 1) + 1), key=len)
    first, last = int(longest[0]), int(longest[-1]) + 1
    first = max(i for i in range(first, last) if mean[i] <= mean[first] + flat)
    last = min(i for i in range(first + 1, last + 1) if mean[i] >= mean[last] - flat)
    fallen = [i for i in range(last + 1, len(mean)) if mean[i] < mean[last] - flat]
    return float(strengths[first]), float(strengths[last]), float(strengths[fallen[0]]) if fallen else None


def told(strengths: Sequence[float], values: Any) -> str:
    """`rising` in words."""
    first, last, turn = rising(strengths, values)
    if first == last:
        return "rises nowhere"
    return f"rises from {first:g} to {last:g}" + (f" and turns over at {turn:g}" if turn is not None else "")


def draw(
    title: str, strengths: Sequence[float], behaviours: Mapping[str, Any], perplexities: Mapping[str, Any]
) -> go.Figure:
    """Behaviours `[run strength]` on the left axis, perplexities on a logarithmic one to the right, by name."""
    figure = make_subplots(specs=[[{"secondary_y": True}]]).update_layout(title=title, xaxis_title="strength")
    for name, values in behaviours.items():
        runs.curve(figure, values, x=list(strengths), name=name, mode="lines+markers")
    for name, values in perplexities.items():
        look = {"name": f"perplexity: {name}", "mode": "lines", "line": {"dash": "dot"}}
        error = {"array": runs.spread(values)}
        figure.add_scatter(x=list(strengths), y=np.mean(values, 0), error_y=error, secondary_y=True, **look)
    figure.update_yaxes(title_text="behaviour", secondary_y=False)
    return figure.update_yaxes(title_text="perplexity", type="log", tickmode="auto", showgrid=False, secondary_y=True)
