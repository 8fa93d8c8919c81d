"""What the dashboard asks of a trained model: texts that are padded, and what is said while a feature is held."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, explain, models
from interp_jax.cli import live
from interp_jax.interventions import at, replace
from tests.real.conftest import Real

pytestmark = pytest.mark.real
SITE, TEXT = "blocks.12.resid_post", "The film « Amélie » was released in"


def test_a_text_is_tried_and_steered(smollm: Real, monkeypatch) -> None:
    model, tokenizer = smollm.model, smollm.tokenizer
    dictionary = dictionaries.TopK.create(jax.random.key(0), 576, 1024, 16)
    ids = jnp.asarray([tokenizer.encode(TEXT, bos=tokenizer.bos_id is not None)])
    records = explain.record(models.forward, {SITE: dictionary})(model, ids)
    asked = live.live(model, tokenizer, records, {SITE: dictionary})
    x = ij.capture(models.forward, SITE, output=False)(model, ids)[SITE]
    features = np.asarray(dictionary.encode(x), np.float32)[0]
    unit = int(features[1:].max(0).argmax())
    tokens, values = asked.fire(SITE, unit, TEXT)
    special = np.isin(np.asarray(ids[0]), [tokenizer.bos_id, tokenizer.eos_id])
    assert "".join(tokens[:2]) == "The film" and len(tokens) == (~special).sum()
    np.testing.assert_allclose(values, features[~special, unit], atol=0.02 * features[:, unit].max())

    monkeypatch.setattr(live, "N_TOKENS", 4)
    before, after = asked.steer(SITE, unit, TEXT, 20.0)
    value = jnp.float32(20 * float(records[SITE].maxima[unit]))
    edits = {SITE: dictionaries.splice(dictionary, edit=at(replace(value), feature=unit))}
    assert tokenizer.decode(ids[0]) + before == tokenizer.decode(models.generate(model, ids, 4)[0]) and before != after
    first = ij.intervene(models.forward, edits)(model, ids)[0, -1].argmax()
    assert after.startswith(tokenizer.decode([int(first)]))
