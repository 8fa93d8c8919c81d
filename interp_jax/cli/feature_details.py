"""What the features of a graph fire on in a text, and what they make likelier."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import graphs, models, report
from interp_jax.cli import subject
from interp_jax.data import corpus

N_TOKENS, N_POSITIONS = 60_000, 64  # of the text that is read


def collect(
    some: subject.Subject, transcoders: Any, found: list[tuple[int, int]], text: Path
) -> dict[tuple[int, int], tuple[str, graphs.FeatureDetails]]:
    """A label and details of each feature, `(layer, index)`, that fires in a text.

    Raises:
      FileNotFoundError, ValueError: as `data.corpus.read`.
    """
    read = corpus.read(some.tokenizer, text, n_tokens=N_TOKENS, n_positions=N_POSITIONS)
    strings = some.tokenizer.to_str_tokens(range(some.tokenizer.d_vocab))
    firing = _firings(some, transcoders, found, read)
    words = report.words(read.tokens, read.mask, strings)
    effects = subject.logit_effects(some, [_written(transcoders, *feature) for feature in found])
    made = {}
    for i, (layer, index) in enumerate(found):
        if not firing.counts[i]:
            continue
        label = report.label(firing, words, i)
        logits = None if effects is None else effects[i]
        seen = report.describe(firing, i, label, read.tokens, read.mask, strings, logits)
        examples = {"Top": [(one.tokens, one.values) for one in seen.top]}
        for low, high, several in seen.intervals:
            examples[f"{low:.2f} to {high:.2f}"] = [(one.tokens, one.values) for one in several]
        raised, lowered = ([token for token, _ in tokens] for tokens in (seen.raised, seen.lowered))
        made[layer, index] = str(label), graphs.FeatureDetails(index, examples, raised, lowered)
    return made


def _firings(some: subject.Subject, transcoders: Any, found: list[tuple[int, int]], read: corpus.Corpus) -> Any:
    """Where these features fire, numbered in their order."""
    layers, indices = (np.array(column) for column in zip(*found, strict=True))
    wanted, column = np.unique(indices, return_inverse=True)
    replaced = graphs.replace_mlps(models.forward, transcoders)
    site = next(name for name in ij.sites(replaced, some.model, read.tokens[:1]) if name.endswith(".features"))
    run = ij.capture(replaced, {site: lambda x: x[..., wanted]}, output=False)
    parts = []
    for start, rows in subject.batches("what features fire on", read.tokens):
        tokens, real = (jnp.asarray(part[rows]) for part in (read.tokens, read.real))
        acts = run(some.model, tokens, attention_mask=real)[site]
        dense = (np.asarray(acts, np.float32)[layers, ..., column] * read.mask[rows])[:, start - rows.start :]
        feature, row, position = np.nonzero(dense)
        place = ((row + start) * read.tokens.shape[1] + position).astype(np.int32)
        parts.append((feature, place, dense[feature, row, position]))
    return report.Firings.of_batches(parts, len(found), read.mask)


def _written(transcoders: Any, layer: int, index: int) -> np.ndarray:
    """What a unit of a feature writes to the stream, to all layers together."""
    if isinstance(transcoders, list):
        return np.asarray(transcoders[layer].W_dec[index], np.float32)
    return np.asarray(transcoders.causal()[layer, :, index].sum(0), np.float32)
