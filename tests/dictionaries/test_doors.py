"""What is given to a dictionary is checked at the door: shapes, dtypes, structure and numbers."""

from dataclasses import replace
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from interp_jax.dictionaries import TrainState, train, train_step
from interp_jax.dictionaries.kinds.arrays import check_sizes
from tests.dictionaries.kinds import ARCHITECTURES, D_IN, PAIRS, batch, create, inputs, kinds, noisy

TRAINED = sorted(set(ARCHITECTURES) - {"ica", "neuron_basis", "nmf", "pca", "random_directions"})


def state(kind):
    return TrainState.create(create(kind), 10)


def refused(message, call):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_batch_of_another_shape_structure_or_dtype_is_refused(kind):
    one, good = state(kind), batch(kind)
    x = good[0] if kind in PAIRS else good
    wrong = (lambda x: (x, good[1])) if kind in PAIRS else (lambda x: x)
    refused(r"wanted \[n", lambda: train_step(one, wrong(jnp.stack([x, x]))))
    refused(r"wanted \[n", lambda: train_step(one, wrong(x[..., :-1])))
    refused(r"wanted \[n", lambda: train_step(one, wrong(x[:0])))
    refused("a batch of int32; give activations", lambda: train_step(one, wrong(jnp.ones(x.shape, jnp.int32))))
    other = x if kind in PAIRS else (x, x)
    refused("a batch is " + ("a pair" if kind in PAIRS else "one array"), lambda: train(one, [other]))
    refused("this one is a dict", lambda: train_step(one, {"a": x}))
    if kind in PAIRS:
        refused("targets of shape", lambda: train_step(one, (x, good[1][:-1])))


@kinds
def test_lists_and_numpy_arrays_are_inputs_like_any_other(kind):
    d, x = noisy(kind), np.asarray(inputs(kind, n=4), np.float64)
    for same in (x, x.tolist()):
        np.testing.assert_allclose(d.encode(same), d.encode(jnp.asarray(x)), atol=1e-5)
        np.testing.assert_allclose(d(same), d(jnp.asarray(x)), atol=1e-5)
    np.testing.assert_allclose(d.decode(np.asarray(d.encode(x)).tolist()), d.decode(d.encode(x)), atol=1e-5)
    assert d(np.ones(x.shape, np.int32)).dtype == jnp.float32


def test_lists_are_fitted_scaled_and_compared_too():
    x = np.asarray(batch("relu"), np.float64)
    np.testing.assert_allclose(dictionaries.Scaling.fit(x.tolist())(x.tolist()), dictionaries.Scaling.fit(x)(x))
    np.testing.assert_allclose(dictionaries.PCA.create(jax.random.key(0), 8, 8, x=x.tolist())(x), x, atol=1e-4)
    child = lambda x: dictionaries.splitting(create("relu"), create("relu"), x).correlation  # noqa: E731
    np.testing.assert_allclose(child(x.tolist()), child(x), atol=1e-5)


def test_lists_are_batches_too():
    x = np.asarray(batch("relu"))
    after, _ = train_step(state("relu"), x.tolist())
    jax.tree.map(np.testing.assert_array_equal, after, train_step(state("relu"), x)[0])
    one = train(state("relu"), [x.tolist()], until=1)
    np.testing.assert_allclose(one.dictionary.W_enc, after.dictionary.W_enc, rtol=1e-6)


def test_half_an_input_is_not_one_input_with_heads():
    d = create("relu")
    refused(
        r"d_in=8.*if it is one input with 2 heads, give x.reshape\(-1\)", lambda: d.encode(jnp.ones((2, D_IN // 2)))
    )
    assert d.encode(jnp.ones((5, 2, D_IN // 2))).shape == (5, d.d_sae)


@pytest.mark.parametrize("number", [np.int64, np.int32])
def test_numbers_of_numpy_and_jax_are_numbers(number, tmp_path):
    made = [
        dictionaries.TopK.create(jax.random.key(0), number(D_IN), number(16), number(4), k_aux=number(2)),
        dictionaries.Matryoshka.create(jax.random.key(0), D_IN, 16, number(4), widths=(number(4), number(16))),
        dictionaries.PAnneal.create(jax.random.key(0), D_IN, 16, p_end=np.float64(0.5)),
    ]
    for d in made:
        dictionaries.save(tmp_path / "d", d)
        assert jax.tree.structure(dictionaries.load(tmp_path / "d")) == jax.tree.structure(d)
        train_step(TrainState.create(d, 5), inputs("relu"))


@pytest.mark.parametrize("kind", ["TopK", "BatchTopK", "Matryoshka", "NeuronBasis"])
def test_a_size_that_is_no_whole_number_is_refused(kind):
    cls = getattr(dictionaries, kind)
    with pytest.raises((ValueError, TypeError)):  # the second from what checks annotations in tests
        cls.create(jax.random.key(0), D_IN, D_IN, k=4.0)
    refused("k=4.0 must be a whole number", lambda: check_sizes(cls, d_in=D_IN, k=4.0))


def test_batches_that_end_early_are_told():
    with pytest.warns(UserWarning, match=r"the batches ended after 2 of 10 steps"):
        train(state("relu"), [inputs("relu")] * 2)
    with pytest.warns(UserWarning, match=r"the batches ended after 2 of 10 steps"):
        dictionaries.train_many([state("relu")], [inputs("relu")] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = train(state("relu"), [inputs("relu")] * 20, until=5)
        assert int(train(half, [inputs("relu")] * 20).step) == 10


def test_dead_features_start_again_where_all_are_dead():
    one = state("relu")
    silent = replace(one.dictionary, W_enc=0 * one.dictionary.W_enc, W_dec=0 * one.dictionary.W_dec)
    one = replace(one, dictionary=silent, steps_since_fired=one.steps_since_fired + 99)
    after = dictionaries.resample(jax.random.key(0), one, inputs("relu"))
    assert float((after.dictionary.encode(inputs("relu")) > 0).mean()) > 0.1
    assert float(jnp.linalg.norm(after.dictionary.W_dec, axis=-1).min()) > 0


@kinds
def test_decoder_norms_are_folded_and_nothing_else_changes(kind, tmp_path):
    d, x = noisy(kind), inputs(kind)
    if kind not in ("pca", "neuron_basis", "nmf", "archetypal"):  # whose rows are of unit norm, or made of others
        sizes = jnp.asarray(np.random.default_rng(3).uniform(0.2, 5, d.W_dec.shape[:-1]), jnp.float32)
        d = replace(d, W_dec=d.W_dec * (sizes if kind != "crosscoder" else sizes[:1])[..., None])
    folded = d.fold_decoder_norms()
    np.testing.assert_allclose(folded(x), d(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(folded.encode(x) != 0, d.encode(x) != 0)
    if kind not in ("nmf", "pca"):  # noisy ones are none
        np.testing.assert_allclose(folded.decoder_norms(), jnp.ones(folded.feature_shape), atol=1e-4)
    dictionaries.save(tmp_path / "d", folded)
    np.testing.assert_allclose(dictionaries.load(tmp_path / "d")(x), d(x), rtol=1e-4, atol=1e-4)
    again = folded.fold_decoder_norms()
    np.testing.assert_allclose(again(x), d(x), rtol=1e-4, atol=1e-4)


@kinds
def test_a_row_of_zeros_gives_no_nan(kind):
    d = noisy(kind)
    if "W_dec" not in vars(d):
        return
    d = replace(d, W_dec=d.W_dec.at[..., 3, :].set(0))
    assert np.isfinite(np.asarray(d.fold_decoder_norms()(inputs(kind)))).all()
    if d.sparsity_coefficient or kind in ("topk", "batchtopk", "matryoshka"):
        after, info = train_step(TrainState.create(d, 5), batch(kind))
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((after, info)))


def test_a_state_is_saved_and_goes_on_bit_for_bit(tmp_path):
    x = np.asarray(jax.random.normal(jax.random.key(5), (256, D_IN)))
    for kind in ("jumprelu", "batchtopk", "topk"):
        one = state(kind)
        whole = train(one, dictionaries.shuffled(x, 32))
        half = train(one, dictionaries.shuffled(x, 32), until=4)
        dictionaries.save(tmp_path / kind, half, site="blocks.1.resid_post")
        again = dictionaries.load_state(tmp_path / kind)
        jax.tree.map(np.testing.assert_array_equal, again, half)
        jax.tree.map(np.testing.assert_array_equal, dictionaries.load(tmp_path / kind), half.dictionary)
        end = train(again, dictionaries.shuffled(x, 32, start=int(again.step)))
        jax.tree.map(np.testing.assert_array_equal, end, whole)
    dictionaries.save(tmp_path / "d", whole.dictionary)
    refused("without a state of training", lambda: dictionaries.load_state(tmp_path / "d"))


def test_a_folder_that_cannot_be_read_is_told_what_can(tmp_path):
    (tmp_path / "params.npz").write_bytes(b"x")
    refused("a dictionary is read from what save writes", lambda: dictionaries.load(tmp_path))
