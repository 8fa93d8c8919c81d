"""Methods on a real model: where a name is read from, what layers would say, an induction head, a dictionary."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, heads, lens, metrics, models, patching
from tests.real.conftest import Real

pytestmark = pytest.mark.real
ROOT = Path(__file__).resolve().parents[2]
CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"


def test_a_name_moves_to_the_last_word(smollm: Real) -> None:
    """Patching the residual stream: up to layer 20 the second name decides, from layer 24 the last word."""
    tokens, corrupted = (smollm.tokenizer.to_tokens(text)[None] for text in (CLEAN, CORRUPTED))
    names = [jnp.array([smollm.tokenizer.token_id(name)]) for name in (" Mary", " John")]
    second, last = 9, tokens.shape[1] - 1
    assert smollm.tokenizer.to_str_tokens(np.asarray(tokens[0]))[second] == " John"
    f = partial(models.forward, logits_at=jnp.array([last]))
    metric = metrics.logit_diff(*names)
    before, after = float(metric(f(smollm.model, corrupted))[0]), float(metric(f(smollm.model, tokens))[0])
    assert before < -1 and after > 1
    effects = patching.activation_patch(f, metric, "blocks.resid_pre")(smollm.model, tokens, corrupted)
    share = (np.asarray(effects) - before) / (after - before)
    assert share[:18, second].min() > 0.8 and share[26:, last].min() > 0.8
    moved = int(np.argmax(share[:, last] > share[:, second]))
    assert 20 <= moved <= 24, moved
    others = np.delete(share, [second, last], axis=1)
    assert np.abs(others).max() < 0.5


def test_what_the_layers_would_say(smollm: Real) -> None:
    tokens = smollm.tokenizer.to_tokens("The capital of France is")[None]
    logits, acts = ij.capture(models.forward, "blocks.resid_post")(smollm.model, tokens)
    read = lens.logit_lens(
        models.weights(smollm.model), acts["blocks.resid_post"][:, 0, -1], eps=smollm.model.config.norm_eps
    )
    np.testing.assert_allclose(read[-1], logits[0, -1], atol=1e-3)
    ranks = np.asarray((read > read[:, smollm.tokenizer.token_id(" Paris")][:, None]).sum(1))
    assert ranks[-1] == 0 and ranks[0] > 1000


def test_the_induction_head(smollm: Real) -> None:
    half = jax.random.randint(jax.random.key(0), (4, 24), 1000, 40000)
    tokens = jnp.concatenate([half, half], axis=1)
    pattern = ij.capture(models.forward, "blocks.attn.pattern", output=False)(smollm.model, tokens)
    scores = np.asarray(heads.induction_scores(pattern["blocks.attn.pattern"], tokens))
    assert np.unravel_index(scores.argmax(), scores.shape) == (18, 6)
    assert scores.max() > 0.7


def test_a_dictionary_of_its_activations(smollm: Real) -> None:
    """TopK on 2,048 tokens of this repository's own text, in the middle of the model."""
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "LICENSE").read_text(encoding="utf-8")
    tokens = smollm.tokenizer.to_tokens(text)[:2048].reshape(16, 128)
    read = ij.capture(models.forward, "blocks.15.resid_post", output=False)
    rows = [read(smollm.model, tokens[at : at + 8])["blocks.15.resid_post"] for at in range(0, 16, 8)]
    activations = np.concatenate(rows)[:, 1:].reshape(-1, smollm.model.config.d_model)  # the first one is a giant
    scaling = dictionaries.Scaling.fit(activations)
    x = scaling(jnp.asarray(activations))
    dictionary = dictionaries.TopK.create(jax.random.key(0), x.shape[1], 1024, 32, b_dec=x.mean(0))
    state = dictionaries.TrainState.create(dictionary, 100)
    state = dictionaries.train(state, dictionaries.shuffled(x, 256, seed=0))
    left = x - state.dictionary(x)
    explained = 1 - float(left.var(0).sum() / x.var(0).sum())
    assert explained > 0.7, explained
    spliced = ij.intervene(
        models.forward, {"blocks.15.resid_post": dictionaries.splice(scaling.fold(state.dictionary))}
    )
    np.testing.assert_allclose(
        spliced(smollm.model, tokens[:1]), models.forward(smollm.model, tokens[:1]), atol=2e-2
    )  # with its error beside it, nothing changes
