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
PART = 256  # examples whose words are read at once
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
    places = [(*at, *place) for at in np.ndindex(found.share.shape) for place in found.places(*at).tolist()]
    layers, index, rows, positions = np.array(places, int).reshape(-1, 4).T
    unfolded = models.weights(model)
    W_O = np.asarray(unfolded["W_O"], np.float32)  # [layer head d_head d_model]
    vectors = np.zeros((len(places), W_O.shape[-1]), np.float32)
    read = ij.capture(models.forward, Z, output=False)
    for number, (some, mask) in enumerate(_batches("reading what heads write", tokens, real)):
        z = np.asarray(read(model, some, attention_mask=mask)[Z], np.float32)  # [layer batch position head d_head]
        here = np.flatnonzero(rows // BATCH == number)
        for i in here:
            vectors[i] = z[layers[i], rows[i] % BATCH, positions[i], index[i]] @ W_O[layers[i], index[i]]
    written: Written = defaultdict(dict)
    for (layer, head, row, position), words in zip(places, _words(unfolded, vectors), strict=True):
        written[layer, head][row, position] = [strings[token] for token in words]
    return written


def _words(unfolded: Any, vectors: np.ndarray) -> list[list[int]]:
    """The tokens that vectors of the residual stream `[n d_model]` raise most, in parts of one shape."""
    folded = weights.fold_norms(unfolded)
    found: list[list[int]] = []
    for start in range(0, len(vectors), PART):
        part = vectors[start : start + PART]
        whole = jnp.asarray(np.pad(part, [(0, PART - len(part)), (0, 0)]))
        found += np.asarray(weights.top_tokens_written(folded, whole, N_WORDS)[1])[: len(part)].tolist()
    return found
