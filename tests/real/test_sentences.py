"""An encoder of sentences without a head: hidden states, similarity, and no logits."""

from pathlib import Path
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models
from tests.real.conftest import Real

pytestmark = pytest.mark.real
SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The stock market fell sharply on Monday after the bank's announcement.",
    "Shares dropped.",
]


def embeddings(minilm: Real, sentences: list[str], side: str = "right") -> np.ndarray:
    """The mean over the tokens, as the model's own pooling says, of unit norm."""
    tokens, mask, _ = models.tokenize(minilm.tokenizer, sentences, side=side)
    x = models.hidden(minilm.model, tokens, attention_mask=mask)
    mean = x.mean(1, where=mask[..., None])
    return np.asarray(mean / jnp.linalg.norm(mean, axis=1, keepdims=True))


def test_sentences_that_mean_the_same_are_near(minilm: Real) -> None:
    vectors = embeddings(minilm, SENTENCES)
    near = vectors @ vectors.T
    assert near[0, 1] > 0.6 and near[2, 3] > 0.4
    assert max(near[0, 2], near[0, 3], near[1, 2], near[1, 3]) < 0.2
    np.testing.assert_allclose(embeddings(minilm, SENTENCES, "left"), vectors, atol=1e-5)


def test_it_has_no_logits(minilm: Real) -> None:
    assert minilm.model.config.headless
    with pytest.raises(ValueError, match=r"no unembedding, and so no logits; models.hidden"):
        models.forward(minilm.model, minilm.tokenizer.to_tokens(SENTENCES[0]))


def test_it_travels_without_a_head(minilm: Real, tmp_path: Path) -> None:
    models.save(tmp_path / "model", minilm.model, minilm.tokenizer)
    again, _ = models.load(tmp_path / "model")
    assert again.config == minilm.model.config
    chex.assert_trees_all_equal(again, minilm.model)


@pytest.mark.parity
@pytest.mark.parametrize("side", ["left", "right"])
def test_hidden_states_are_those_of_transformers(minilm: Real, side: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peer: Any = transformers.AutoModel.from_pretrained(minilm.path).eval()
    tokens, mask, _ = models.tokenize(minilm.tokenizer, SENTENCES, side=side)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions}
    with torch.no_grad():
        want = peer(**{name: torch.tensor(np.array(x)).long() for name, x in inputs.items()}).last_hidden_state
    got = np.asarray(models.hidden(minilm.model, tokens, attention_mask=mask))
    np.testing.assert_allclose(got[np.asarray(mask)], want.numpy()[np.asarray(mask)], atol=1e-4)
