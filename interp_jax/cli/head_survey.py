"""Every head over a text, as the dashboard shows it: its scores and examples, with the words that it writes at each.

    what head h of layer l writes at q:  z[l, q, h] W_O[l, h]      read as words by the final norm's weights and W_U

All heads are read in one pass over the examples' texts, where a program for each head would have to be compiled.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import heads, models, report, weights
from interp_jax.progress import Progress

N_TEXTS = 256  # at most
BATCH = 16
N_WORDS = 5
Z = "blocks.attn.z"
Written = dict[tuple[int, int], dict[tuple[int, int], list[str]]]  # head -> (sequence, position) -> words


def survey(model: Any, tokens: np.ndarray, real: np.ndarray, strings: list[str], special: Any) -> Any:
    """The heads of a model over some texts: `report.HeadList`.

    Args:
      model: a `Decoder`.
      tokens: int32 `[sequence position]`, padded on the right.
      real: bool `[sequence position]`, False at padding.
      strings: the text of every token of the vocabulary.
      special: ids that are not shown, such as the bos token.
    """
    tokens, real = tokens[:N_TEXTS], real[:N_TEXTS]
    found = heads.survey(models.forward)(model, _batches("looking where heads look", tokens, real))
    written = _written(model, tokens, real, strings, found)
    shown = real & ~np.isin(tokens, special)
    n_layers, n_heads = found.share.shape
    each = (
        report.describe_head(found, layer, head, tokens, strings, mask=shown, written=written.get((layer, head)))
        for layer in range(n_layers)
        for head in range(n_heads)
    )
    return report.head_list(found, each)


def _batches(what: str, tokens: np.ndarray, real: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """Rows of one shape each but the last, with their mask."""
    with Progress(what, -(-len(tokens) // BATCH)) as progress:
        for start in range(0, len(tokens), BATCH):
            progress.begin()
            yield jnp.asarray(tokens[start : start + BATCH]), jnp.asarray(real[start : start + BATCH])


def _written(model: Any, tokens: np.ndarray, real: np.ndarray, strings: list[str], found: heads.Survey) -> Written:
    """The words that each head makes likelier at its examples."""
    unfolded = models.weights(model)
    folded = weights.fold_norms(unfolded)
    W_O = np.asarray(unfolded["W_O"], np.float32)  # [layer head d_head d_model]
    by_row: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for at in np.ndindex(found.share.shape):
        for row, position in found.places(*at).tolist():
            by_row[row].append((*at, position))
    read = ij.capture(models.forward, Z, output=False)
    written: Written = defaultdict(dict)
    for number, (some, mask) in enumerate(_batches("reading what heads write", tokens, real)):
        z = np.asarray(read(model, some, attention_mask=mask)[Z], np.float32)  # [layer batch position head d_head]
        for i in range(len(some)):
            row = number * BATCH + i
            if row not in by_row:
                continue
            layers, index, positions = (np.array(column) for column in zip(*by_row[row], strict=True))
            vectors = np.einsum("nd,ndm->nm", z[layers, i, positions, index], W_O[layers, index])
            _, ids = weights.top_tokens_written(folded, jnp.asarray(vectors), N_WORDS)
            for (layer, head, position), words in zip(by_row[row], np.asarray(ids), strict=True):
                written[layer, head][row, position] = [strings[int(token)] for token in words]
    return written
