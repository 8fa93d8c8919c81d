"""Masks: who is told what to attend to, who is refused, and what is skipped."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries

D = 4
rng = np.random.default_rng(0)
TOKENS = rng.integers(0, 50, (24, 6))
MASK = np.arange(6) < rng.integers(1, 7, (24, 1))
TABLE = jnp.asarray(rng.normal(size=(50, D)), jnp.float32)


def in_order(rows):
    return rows[np.lexsort(rows.T)]


def masked(table, tokens, **options):
    """A model whose every token sees those before it, but for padding."""
    x = table[tokens]
    real = options.get("attention_mask")
    x = x if real is None else jnp.where(real[..., None], x, 0.0)
    return ij.site(jnp.cumsum(x, 1), "sum", axes=("batch", "position", "d_model")) @ table.T


def test_a_model_that_takes_any_keyword_is_told_and_one_that_takes_none_wants_padding_on_the_right():
    left = np.take_along_axis(TOKENS, np.argsort(MASK, axis=1, kind="stable"), 1), np.sort(MASK, axis=1)
    d = dictionaries.TopK.create(jax.random.key(0), D, 8, 2)

    def deaf(table, tokens):
        return masked(table, tokens)

    expected = in_order(np.concatenate(list(dictionaries.harvest(deaf, "sum", TABLE, [(TOKENS, MASK)], batch_size=1))))
    for tokens in ([left], [(left[0][:5], left[1][:5]), (left[0][5:], left[1][5:])]):
        rows = np.concatenate(list(dictionaries.harvest(masked, "sum", TABLE, tokens, batch_size=1)))
        np.testing.assert_allclose(in_order(rows), expected, atol=1e-5)
    right = dictionaries.evaluate(deaf, "sum", d, TABLE, TOKENS, mask=MASK).numbers()
    assert dictionaries.evaluate(masked, "sum", d, TABLE, left[0], mask=left[1]).numbers() == pytest.approx(right, 1e-4)
    for call in (
        lambda: dictionaries.harvest(deaf, "sum", TABLE, left[0], mask=left[1], batch_size=2),
        lambda: next(dictionaries.harvest(deaf, "sum", TABLE, [left], batch_size=2)),
        lambda: dictionaries.evaluate(deaf, "sum", d, TABLE, left[0], mask=left[1]),
    ):
        with pytest.raises(ValueError, match="padding before tokens, which f, without a keyword attention_mask"):
            call()


def test_a_mask_that_is_bound_has_to_be_given():
    """It would stay in its order while the sequences are shuffled."""
    f = partial(masked, attention_mask=MASK)
    d = dictionaries.TopK.create(jax.random.key(0), D, 8, 2)
    with pytest.raises(ValueError, match="harvest: f has bound an attention_mask of all sequences; give it as mask="):
        dictionaries.harvest(f, "sum", TABLE, TOKENS, batch_size=2)
    with pytest.raises(ValueError, match="evaluate: f has bound an attention_mask"):
        dictionaries.evaluate(f, "sum", d, TABLE, TOKENS)
    same = dictionaries.evaluate(masked, "sum", d, TABLE, TOKENS, mask=MASK).numbers()
    assert dictionaries.evaluate(f, "sum", d, TABLE, TOKENS, mask=MASK, batch_size=7).numbers() == pytest.approx(same)


@pytest.mark.parametrize("skip", [3, (3, None), np.int32(3), np.array([3]), jnp.array(3), {3}])
def test_ids_to_skip_come_in_any_form(skip):
    batches = dictionaries.harvest(masked, "sum", TABLE, TOKENS, mask=MASK, skip=skip, batch_size=1, epochs=1)
    assert len(list(batches)) == (MASK & (TOKENS != 3)).sum()


def test_without_a_special_token_nothing_is_skipped():
    assert (
        len(list(dictionaries.harvest(masked, "sum", TABLE, TOKENS, skip=None, batch_size=1, epochs=1))) == TOKENS.size
    )


@pytest.mark.parametrize("skip", ["<s>", ["<s>"], 1.5, [True]])
def test_what_is_no_id_is_refused(skip):
    d = dictionaries.TopK.create(jax.random.key(0), D, 8, 2)
    with pytest.raises(ValueError, match="harvest: skip=.* are no token ids; give such as tokenizer.bos_id"):
        dictionaries.harvest(masked, "sum", TABLE, TOKENS, skip=skip, batch_size=2)
    with pytest.raises(ValueError, match="evaluate: skip=.* are no token ids"):
        dictionaries.evaluate(masked, "sum", d, TABLE, TOKENS, skip=skip)
