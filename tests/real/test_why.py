"""Why SmolLM2 says Mary rather than John: scores add up, and the heads that write are those that ablation names."""

import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models
from interp_jax.explain import ablations, why
from tests.real.conftest import Real

pytestmark = pytest.mark.real
PROMPT = "When Mary and John went to the store, John gave a drink to"


def test_heads_that_tell_mary_from_john(smollm: Real) -> None:
    tokens, mask, _ = models.tokenize(smollm.tokenizer, [PROMPT])
    weights, ends = models.weights(smollm.model), (" Mary", " John")
    found = why(models.forward, *ends, tokenizer=smollm.tokenizer)(smollm.model, weights, tokens, mask)
    logits = models.forward(smollm.model, tokens)[0, -1]
    mary, john = (smollm.tokenizer.token_id(word) for word in ends)
    np.testing.assert_allclose(found.value, logits[mary] - logits[john], rtol=1e-4)
    assert abs(float(found.total("direct") - found.value)) < 1e-3
    assert abs(float(found.constants["direct"])) < 1e-3  # RMS norms and no bias: nodes are all there is
    heads = [row.node for row in found.top(4, by="direct", kinds=["head"])]
    assert [node.name for node in heads[:2]] == ["head 23.3", "head 29.1"]
    runs = ablations(models.forward, heads, *ends, tokenizer=smollm.tokenizer)(smollm.model, weights, tokens, mask)
    change = float(found.value) - np.asarray(runs.value)
    gradients = np.array([found[node].scores["gradient"] for node in heads])
    assert (np.sign(change) == np.sign(gradients)).all() and jnp.corrcoef(change, gradients)[0, 1] > 0.9
