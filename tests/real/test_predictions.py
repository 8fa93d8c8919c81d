"""A prediction of a real model and the passage that it rests on; vectors for tokens where embeddings are scaled."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.explain import Reconstructor, as_token, embedding_norm, reconstruct, removal
from tests.real.conftest import Real

pytestmark = pytest.mark.real
PASSAGES = ["Lily lives in Cairo.", "Oscar lives in Rome.", "Grace lives in Oslo."]


def test_the_passage_that_an_answer_rests_on(smollm: Real) -> None:
    """The answer moves further without it than without another, and follows it when it is changed."""
    cairo, rome = (smollm.tokenizer.token_id(word) for word in (" Cairo", " Rome"))

    def logits(texts: Sequence[str]) -> jax.Array:
        prompts = [f"{text} So, where does Oscar live? Oscar lives in" for text in texts]
        tokens, mask, last = models.tokenize(smollm.tokenizer, prompts)
        return models.forward(smollm.model, tokens, attention_mask=mask, logits_at=last)

    def strength(texts: Sequence[str]) -> jax.Array:
        return jax.nn.log_softmax(logits(texts))[:, rome]

    right, wrong = (removal(strength, PASSAGES, [i], n_draws=2) for i in (1, 0))
    assert right.score > 1 and right.rank == 1 and wrong.score < 0
    changed = logits([" ".join(PASSAGES), " ".join(PASSAGES).replace("Oscar lives in Rome", "Oscar lives in Cairo")])
    assert changed[0, rome] > changed[0, cairo] and changed[1, cairo] > changed[1, rome]


def test_a_vector_in_the_place_of_a_token(gemma: Real) -> None:
    """Gemma multiplies its embeddings by the root of d_model: measured, so that a token's own embedding is itself."""
    tokens = gemma.tokenizer.to_tokens("The Eiffel Tower is in the city of")[None]
    embeddings = ij.capture(models.forward, "embed", output=False)(gemma.model, tokens)["embed"]
    own = embeddings[0, 3].astype(jnp.float32)
    stored = models.forward(gemma.model, tokens)
    edit = as_token(own * 0.01, 3, jnp.linalg.norm(own))  # as its direction alone, of another length
    np.testing.assert_allclose(ij.intervene(models.forward, edit)(gemma.model, tokens), stored, atol=2e-3)
    norm = embedding_norm(models.forward, gemma.model, tokens)
    assert float(norm) == pytest.approx(float(jnp.linalg.norm(embeddings, axis=-1).mean()), rel=1e-5)
    d = gemma.model.config.d_model
    read = reconstruct(models.forward, "blocks.2.resid_post")(
        Reconstructor(gemma.model, jnp.eye(d), jnp.zeros(d)), tokens
    )
    whole = ij.capture(models.forward, "blocks.2.resid_post", output=False)(gemma.model, tokens)["blocks.2.resid_post"]
    np.testing.assert_allclose(read, whole[:, -1], rtol=1e-4, atol=1e-3)
