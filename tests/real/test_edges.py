"""Edge probes of a real BERT on real sentences: what its layers add to its embeddings."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import interp_jax as ij
from interp_jax import models, probes
from interp_jax.data import conllu, spans
from tests.real.conftest import Real

pytestmark = pytest.mark.real


def edges(minilm: Real, file: Path, n: int, kind: str) -> probes.Edges:
    batch = conllu.labelled(jax.random.key(0), minilm.tokenizer, conllu.read(file)[:n], kind=kind, n_positions=24)
    where = ("blocks.0.resid_pre", "blocks.normalized_resid_post")
    acts = ij.capture(models.hidden, where, output=False)(minilm.model, batch.tokens, attention_mask=batch.mask)
    x = jnp.concatenate([acts[where[0]][None], acts[where[1]]])
    last = models.hidden(minilm.model, batch.tokens, attention_mask=batch.mask)
    np.testing.assert_allclose(x[-1][batch.mask], last[batch.mask], atol=1e-5)  # these are the layers, the last one too
    return probes.Edges(x, *spans.by_sentence(batch))


def test_how_words_depend_is_known_above_the_embeddings(minilm: Real, real_data: Path) -> None:
    train, test = (
        edges(minilm, real_data / "ud-ewt" / f"en_ewt-ud-{part}.conllu", 300, "relations") for part in ("dev", "test")
    )
    probe = probes.EdgeProbe.create(jax.random.key(0), 7, 384, len(conllu.RELATIONS), n_spans=2, d_proj=64, d_hidden=64)
    state = probes.EdgeState.create(probes.prefixes(probe), optax.adam(1e-3))
    state = probes.train_edges(jax.random.key(1), state, train, 150)
    scores = np.asarray(probes.edge_scores(state.probe, test))
    labels = test.labels[test.labels >= 0]
    assert scores[0] > 2 * np.bincount(labels).max() / len(labels)
    assert scores[-1] > scores[0] and 1 <= float(probes.expected_layer(scores)) < 6
