"""A kind of dictionary that is defined outside the package trains, saves, loads, splices, is scored and shown."""

from dataclasses import dataclass, field, replace
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import interp_jax as ij
from interp_jax import dictionaries, report
from interp_jax.dictionaries import LossContext, TrainState, loss_terms
from interp_jax.interventions import at, scale

D_IN, D_SAE, N_TOKENS = 8, 24, 10


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Softplus(dictionaries.Dictionary):
    """Smooth features with an L2 penalty and a gain that is trained: nothing of it is in the package."""

    W_enc: Any
    b_enc: Any
    W_dec: Any
    b_dec: Any
    gain: Any
    sharpness: float = field(metadata={"static": True})

    unit_rows = True
    precise = ("gain",)
    sparsity_coefficient = 0.01

    @classmethod
    def create(cls, key, d_in, d_sae, *, sharpness=4.0):
        W_dec = jax.random.normal(key, (d_sae, d_in)) / d_in**0.5
        return cls(W_dec.T, jnp.full(d_sae, -1.0), W_dec, jnp.zeros(d_in), jnp.ones(()), sharpness)

    def activate(self, pre):
        soft = self.gain.astype(pre.dtype) * jax.nn.softplus(self.sharpness * pre) / self.sharpness
        return jnp.where(pre > 0, soft, jnp.zeros_like(soft))

    def loss(self, x, context: LossContext):
        features = self.encode(x)
        return loss_terms(
            self.decode(features) - self.inputs(x), features, context, sparsity=jnp.sum(features**2) / len(features)
        )


def f(W, tokens):
    return ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")) @ W.T


W = jax.random.normal(jax.random.key(3), (N_TOKENS, D_IN))
TOKENS = jax.random.randint(jax.random.key(4), (64, 6), 0, N_TOKENS)


def start(seed=0, n_steps=300, **options):
    dictionary = Softplus.create(jax.random.key(seed), D_IN, D_SAE)
    return TrainState.create(dictionary, n_steps, **({"learning_rate": 1e-2} | options))


@pytest.fixture(scope="module")
def trained():
    batches = dictionaries.harvest(f, "resid", W, TOKENS, batch_size=64)
    return dictionaries.train(start(), batches)


def test_it_trains_and_is_scored(trained):
    before = dictionaries.evaluate(f, "resid", start().dictionary, W, TOKENS)
    after = dictionaries.evaluate(f, None, trained.dictionary, W, TOKENS)
    assert after.fvu < 0.3 < before.fvu  # the seed of it reconstructs hardly anything
    assert after.ce_recovered > before.ce_recovered
    assert trained.dictionary.sites == "resid" and trained.dictionary.gain != 1
    np.testing.assert_allclose(dictionaries.stability(trained.dictionary, trained.dictionary), 1, rtol=1e-6)


def test_it_is_saved_and_loaded(trained, tmp_path):
    dictionaries.save(tmp_path / "d", trained.dictionary, site="resid")
    again = dictionaries.load(tmp_path / "d")
    assert type(again) is Softplus and again.sharpness == 4.0
    jax.tree.map(np.testing.assert_array_equal, again, trained.dictionary)
    assert type(dictionaries.load(tmp_path / "d", kinds=[Softplus])) is Softplus
    with pytest.raises(ValueError, match="SAELens has no form of a Softplus"):
        dictionaries.save(tmp_path / "s", trained.dictionary, format="sae_lens")
    with pytest.raises(ValueError, match=r"unknown architecture 'Softplus'; import its class .*test_own_kind.Softplus"):
        dictionaries.load(tmp_path / "d", kinds=[dictionaries.TopK])


def test_where_its_class_is_not_there_loading_says_which_is_wanted(trained, tmp_path):
    dictionaries.save(tmp_path / "d", trained.dictionary)
    line = f"from interp_jax import dictionaries; dictionaries.load({str(tmp_path / 'd')!r})"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    assert f"import its class {Softplus.__module__}.Softplus" in done.stderr.splitlines()[-1]


def test_a_subclass_of_ours_is_not_taken_for_ours(tmp_path):
    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Louder(dictionaries.ReLU):
        def activate(self, pre):
            return 2 * super().activate(pre)

    made = Louder.create(jax.random.key(0), D_IN, D_SAE)
    dictionaries.save(tmp_path / "d", made)
    assert type(dictionaries.load(tmp_path / "d")) is Louder


def test_its_training_goes_on(tmp_path):
    x = jax.random.normal(jax.random.key(1), (256, D_IN))
    whole = dictionaries.train(start(n_steps=8), dictionaries.shuffled(x, 64))
    half = dictionaries.train(start(n_steps=8), dictionaries.shuffled(x, 64), until=4)
    dictionaries.save(tmp_path / "half", half)
    on = dictionaries.train(dictionaries.load_state(tmp_path / "half"), dictionaries.shuffled(x, 64, start=4))
    jax.tree.map(np.testing.assert_array_equal, on, whole)


def test_many_train_together_as_alone():
    x = jax.random.normal(jax.random.key(1), (256, D_IN))
    states = [start(seed, n_steps=8, learning_rate=rate) for seed, rate in ((0, 1e-2), (1, 1e-3))]
    many = dictionaries.train_many(states, dictionaries.shuffled(x, 64), chunk=2)
    for state, one in zip(states, many, strict=True):
        alone = dictionaries.train(state, dictionaries.shuffled(x, 64))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, alone)


def test_what_one_program_cannot_hold_is_refused():
    states = [start(0, n_steps=8), start(1, n_steps=8, learning_rate=None, optimizer=optax.lion(1e-3))]
    with pytest.raises(ValueError, match="differ in optimizer or schedule"):
        dictionaries.train_many(states, [jnp.ones((64, D_IN))] * 8)


def test_it_is_spliced(trained):
    d, x = trained.dictionary, W[TOKENS]
    spliced = ij.intervene(f, {"resid": dictionaries.splice(d, keep_error=False)})(W, TOKENS)
    np.testing.assert_allclose(spliced, d(x) @ W.T, atol=1e-4)
    off = dictionaries.splice(d, edit=at(scale(0.0), feature=3))
    expected = (x - d.encode(x)[..., 3:4] * d.W_dec[3]) @ W.T
    np.testing.assert_allclose(ij.intervene(f, {"resid": off})(W, TOKENS), expected, atol=1e-4)


def test_it_is_shown(trained):
    d, tokens, mask, strings = trained.dictionary, np.asarray(TOKENS), np.ones(TOKENS.shape, bool), list("abcdefghij")
    found = report.firings(d, W[TOKENS])
    assert found.counts.sum() == (d.encode(W[TOKENS]) > 0).sum()
    telling = report.telling(found, report.words(tokens, mask, strings), d.W_dec, n=3, least_firings=1, most=1.0)
    features = [report.describe(found, feature, label, tokens, mask, strings, None) for feature, label in telling]
    assert len(features) == 3
    assert "<html" in report.page(features, title="Softplus", facts={}, densities=found.densities)


@pytest.mark.parametrize("optimizer", [optax.lion(1e-3), optax.adamw(optax.cosine_decay_schedule(1e-2, 30))])
def test_any_optimizer_of_optax_trains(optimizer, tmp_path):
    x = jax.random.normal(jax.random.key(1), (256, D_IN))
    state = start(n_steps=30, learning_rate=None, optimizer=optimizer)
    first, last = (dictionaries.train_step(each, x)[1].loss for each in (state, dictionaries.train(state, [x] * 30)))
    assert last < first
    half = dictionaries.train(state, [x] * 15, until=15)
    dictionaries.save(tmp_path / "half", half)
    with pytest.raises(ValueError, match="functions that its state was created with: optimizer"):
        dictionaries.load_state(tmp_path / "half")
    on = dictionaries.load_state(tmp_path / "half", optimizer=optimizer)
    jax.tree.map(np.testing.assert_array_equal, on, half)
    with pytest.raises(ValueError, match="learning_rate beside an optimizer"):
        start(optimizer=optimizer)


def test_a_schedule_of_optax_is_a_learning_rate():
    x = jax.random.normal(jax.random.key(1), (256, D_IN))
    ours = start(n_steps=40, n_warmup=10, n_decay=10)
    rising = optax.join_schedules(
        [lambda n: 1e-2 * (n + 1) / 10, optax.constant_schedule(1e-2), lambda n: 1e-2 * (10 - n) / 10], [9, 30]
    )
    theirs = start(n_steps=40, learning_rate=rising)
    a, b = (dictionaries.train(state, [x] * 40).dictionary for state in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), a, b)
    with pytest.raises(ValueError, match="warm-up beside a schedule"):
        start(learning_rate=rising, n_warmup=3)
    with pytest.raises(ValueError, match="decay beside a schedule"):
        start(learning_rate=rising, n_decay=3)


def test_moments_and_fields_are_checked(tmp_path):
    made = Softplus.create(jax.random.key(0), D_IN, D_SAE)
    with pytest.raises(ValueError, match="gain of a Softplus is a dict"):
        dictionaries.save(tmp_path / "d", replace(made, gain={"a": 1.0}))
