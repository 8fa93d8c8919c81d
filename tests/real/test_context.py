"""What a context lays out in real models: walks on a ring of words; contexts of people, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import data, geometry, models
from tests.real.conftest import Real

pytestmark = pytest.mark.real
WORDS = tuple(f" {word}" for word in "apple bird sand plane opera box car house".split())
LIVES = "\n {entity} lives in"
TEXT = {"before": "Facts:", "clause": LIVES + " {attribute}.", "between": "", "question": LIVES}


def test_a_ring_of_words(gemma: Real) -> None:
    """It predicts neighbours better the more it has read, and in some layer what attention writes is the ring."""
    walks = data.graphs.walks(jax.random.key(0), gemma.tokenizer, 3, graph=data.graphs.ring(8), length=255, words=WORDS)
    probs = jax.nn.softmax(models.forward(gemma.model, walks.tokens).astype(jnp.float32))[..., walks.ids]
    right = np.asarray((probs * walks.adjacency[walks.nodes]).sum(-1)).mean(0)
    assert right[-50:].mean() > right[10:60].mean() > 2 / 8
    read = geometry.context_representations(models.forward, "blocks.attn_out", (walks.tokens.shape[1],), window=50)
    H = read(gemma.model, walks.tokens, walks.ids)[:, 0]
    orders = jax.vmap(lambda key: jax.random.permutation(key, 8))(jax.random.split(jax.random.key(1), 30))
    shuffled = jnp.stack([geometry.spectral_agreement(H[:, order], walks.adjacency) for order in orders])
    agreement = geometry.spectral_agreement(H, walks.adjacency)
    assert agreement.max() > shuffled.max()
    layer = int(agreement.argmax())
    null = geometry.shuffled_energies(jax.random.key(2), H[layer], walks.adjacency, n=200)
    assert geometry.dirichlet_energy(H[layer], walks.adjacency) < null.min()


def test_words_that_are_no_single_token(smollm: Real) -> None:
    words = (*WORDS[:2], " Zimmerhammer")
    with pytest.raises(ValueError, match="^walks: token_id: ' Zimmerhammer' is not one token of this tokenizer but"):
        data.graphs.walks(jax.random.key(0), smollm.tokenizer, 1, graph=data.graphs.ring(3), words=words)
    people = {"entity": ("Alice", "Bob", "Emma"), "attribute": ("Paris", "Rome", "Oxfordshireham")}
    with pytest.raises(ValueError, match="'Oxfordshireham' is not one token of this tokenizer where it stands, but"):
        data.bindings.contexts(jax.random.key(0), smollm.tokenizer, 8, words=people, **TEXT)


def test_contexts_of_people(smollm: Real) -> None:
    """Held as they are, contexts give what they give; another context's whole context gives that one's answer."""
    people = {"entity": ("Alice", "Bob", "Emma", "John"), "attribute": ("Paris", "Rome", "Madrid", "Berlin")}
    some = data.bindings.contexts(jax.random.key(0), smollm.tokenizer, 4, words=people, **TEXT)

    def f(model, tokens):
        return models.forward(model, tokens, logits_at=jnp.full(len(tokens), tokens.shape[1] - 1))

    assert smollm.tokenizer.decode(some.attributes[0, :1]) in smollm.tokenizer.decode(some.tokens[0])
    metric, held = geometry.option_log_probs(some.options()), some.mask("context")
    spare, columns = some.crossed()[1, 1, 0], jnp.flatnonzero(held)
    g = geometry.interchange(f, metric, "blocks.resid_pre")
    plain, other = metric(f(smollm.model, some.tokens)), metric(f(smollm.model, spare))
    np.testing.assert_allclose(
        g(smollm.model, some.tokens, some.tokens, some.columns["entity"], held=held), plain, atol=1e-2
    )
    np.testing.assert_allclose(g(smollm.model, some.tokens, spare, columns), other, atol=1e-2)
    assert np.abs(plain - other).max() > 0.5
