"""Scores of a spliced dictionary, against a recomputation in numpy and under SAEBench's names."""

from dataclasses import dataclass
from dataclasses import replace as with_fields
from functools import partial
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import data, dictionaries, models
from interp_jax.interventions import replace

# The fields of SAEBench 0.6, sae_bench/evals/core/eval_output.py.
SAEBENCH = {
    "model_behavior_preservation": {"kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"},
    "model_performance_preservation": {
        *("ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae")
    },
    "reconstruction_quality": {"explained_variance", "explained_variance_legacy", "mse", "cossim"},
    "shrinkage": {"l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"},
    "sparsity": {"l0", "l1"},
    "token_stats": {"total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"},
    "misc_metrics": {
        *("freq_over_1_percent", "freq_over_10_percent"),
        *("normalized_freq_over_1_percent", "normalized_freq_over_10_percent"),
        *("average_max_encoder_cosine_sim", "average_max_decoder_cosine_sim", "frac_alive"),
    },
}
D, D_SAE = 128, 192


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Signed(dictionaries.ReLU):
    """Features of either sign, of which the small are off."""

    def activate(self, pre):
        return jnp.where(jnp.abs(pre) > 1.5, pre, 0.0)


def signed():
    made = dictionaries.ReLU.create(jax.random.key(3), D, D_SAE, form="towards")
    return Signed(2 * made.W_enc, made.b_enc, 0.3 * made.W_dec, made.b_dec, False, False)


def skip():
    made = dictionaries.SkipTranscoder.create(jax.random.key(3), D, D_SAE)
    W_skip = 0.1 * jax.random.normal(jax.random.key(4), (D, D))
    return with_fields(made, W_skip=W_skip, b_enc=made.b_enc - 0.5)


DICTIONARIES = {
    "blocks.2.resid_post": signed,
    "blocks.0.attn.z": lambda: dictionaries.TopK.create(jax.random.key(3), D, D_SAE, 20),
    ("blocks.1.mlp_in", "blocks.1.mlp_out"): skip,
}


@pytest.fixture(scope="module")
def world():
    model, tokenizer = models.load("microworld", dtype="float32")
    task = data.tasks.ioi(jax.random.key(0), tokenizer, n=12)
    assert not task.mask.all()  # padded on the left
    return model, task.clean, np.asarray(task.mask)


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def brute_force(f, model, tokens, real, where, dictionary):
    read, written = where if isinstance(where, tuple) else (where, where)
    clean, acts = ij.capture(f, [read, written] if read != written else read)(model, tokens)
    site = np.asarray(acts[written], np.float64)
    inputs = np.asarray(acts[read]).reshape(*real.shape, -1)
    x = site.reshape(*real.shape, -1)
    features, y = np.asarray(dictionary.encode(inputs), np.float64), np.asarray(dictionary(inputs), np.float64)
    mean = x[real].mean(0)

    def log_probs(put):
        value = np.where(real[..., None], put, x).reshape(site.shape).astype(np.float32)
        logits = np.asarray(ij.intervene(f, {written: replace(value)})(model, tokens), np.float64)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    runs = {"clean": log_probs(x), "spliced": log_probs(y), "mean": log_probs(mean), "zero": log_probs(0.0)}
    scored = real[:, 1:] & real[:, :-1]
    ce = {k: -np.take_along_axis(v[:, :-1], tokens[:, 1:, None], -1)[..., 0][scored].mean() for k, v in runs.items()}
    kl = {k: (np.exp(runs["clean"]) * (runs["clean"] - v)).sum(-1)[real].mean() for k, v in runs.items()}
    x, y, features = x[real], y[real], features[real]
    square, norms = ((x - y) ** 2).sum(-1), (np.linalg.norm(x, axis=-1), np.linalg.norm(y, axis=-1))

    def max_cosine(rows):
        return np.mean([np.delete(cosine(rows, row[None]), i).max() for i, row in enumerate(rows)])

    return {
        "ce_clean": ce["clean"],
        "ce_spliced": ce["spliced"],
        "ce_mean_ablated": ce["mean"],
        "ce_zero_ablated": ce["zero"],
        "ce_recovered": (ce["mean"] - ce["spliced"]) / (ce["mean"] - ce["clean"]),
        "ce_recovered_zero": (ce["zero"] - ce["spliced"]) / (ce["zero"] - ce["clean"]),
        "kl_spliced": kl["spliced"],
        "kl_mean_ablated": kl["mean"],
        "kl_zero_ablated": kl["zero"],
        "fvu": square.sum() / x.var(0).sum() / len(x),
        "explained_variance_legacy": np.mean(1 - square / ((x - mean) ** 2).sum(-1)),
        "mse": square.mean(),
        "cosine": cosine(x, y).mean(),
        "l2_norm_in": norms[0].mean(),
        "l2_norm_out": norms[1].mean(),
        "l2_ratio": (norms[1] / norms[0]).mean(),
        "relative_reconstruction_bias": (y**2).sum(-1).mean() / (x * y).sum(-1).mean(),
        "l0": (features != 0).sum(-1).mean(),
        "l1": np.abs(features).sum(-1).mean(),
        "dead": (~(features != 0).any(0)).mean(),
        "max_cosine_encoder": max_cosine(np.asarray(dictionary.W_enc, np.float64).T),
        "max_cosine_decoder": max_cosine(np.asarray(dictionary.W_dec, np.float64)),
        "n_tokens": real.sum(),
    }, (features != 0).mean(0)


@pytest.mark.parametrize("where", DICTIONARIES, ids=str)
def test_every_number_is_what_numpy_finds_with_padding(world, where):
    model, tokens, real = world
    f, dictionary = partial(models.forward, attention_mask=real), DICTIONARIES[where]()
    scores = dictionaries.evaluate(f, where, dictionary, model, tokens, mask=real)
    expected, density = brute_force(f, model, tokens, real, where, dictionary)
    assert scores.numbers().keys() == expected.keys()
    for name, value in scores.numbers().items():
        assert value == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    np.testing.assert_allclose(scores.density, density, atol=1e-12)
    assert 0 < scores.l0 < D_SAE and scores.ce_spliced > scores.ce_clean


def test_batches_that_do_not_divide_change_nothing(world):
    model, tokens, real = world
    tokens, real = np.where(real, tokens, 0)[:, ::-1], real[:, ::-1]  # padded on the right, which needs no mask in f
    whole, parts = (
        dictionaries.evaluate(models.forward, "blocks.2.resid_post", signed(), model, tokens, mask=real, batch_size=n)
        for n in (12, 5)
    )
    for name, value in parts.numbers().items():
        assert value == pytest.approx(whole.numbers()[name], rel=1e-4, abs=1e-6), name
    np.testing.assert_allclose(parts.density, whole.density, atol=1e-12)


def toy(model, tokens):
    x = ij.site(jnp.cumsum(model[tokens], axis=1), "resid", axes=("batch", "position", "d_model"))
    return ij.site(x * 2, "late", axes=("batch", "position", "d_model")) @ model.T


TOY = jax.random.normal(jax.random.key(0), (11, 6))
TOKENS = jax.random.randint(jax.random.key(1), (4, 7), 0, 11)


def toy_scores(dictionary, where="resid", model=TOY, tokens=TOKENS, **options):
    return dictionaries.evaluate(toy, where, dictionary, model, tokens, **options)


def test_the_report_has_saebenchs_names_and_is_json():
    scores = toy_scores(dictionaries.TopK.create(jax.random.key(2), 6, 30, 2))
    report = scores.saebench()
    assert {group: set(numbers) for group, numbers in report.items()} == SAEBENCH
    assert json.loads(json.dumps(report)) == report
    kl = report["model_behavior_preservation"]
    assert kl["kl_div_score"] == pytest.approx(1 - kl["kl_div_with_sae"] / kl["kl_div_with_ablation"])
    density, misc = scores.density, report["misc_metrics"]
    assert misc["freq_over_10_percent"] == (density > 0.1).mean()
    assert misc["normalized_freq_over_10_percent"] == pytest.approx(density[density > 0.1].sum() / density.sum())
    assert misc["frac_alive"] == pytest.approx((density > 0).mean())


def test_the_histogram_holds_every_live_feature_once():
    scores = toy_scores(dictionaries.TopK.create(jax.random.key(2), 6, 30, 2))
    counts, edges = scores.histogram(n_bins=8)
    alive = scores.density[scores.density > 0]
    assert counts.sum() == len(alive) < 30 and len(edges) == 9
    middle = (10 ** edges[5] <= alive) & (alive < 10 ** edges[6])
    assert counts[5] == middle.sum()


def test_a_site_in_bfloat16():
    low = TOY.astype(jnp.bfloat16)
    dictionary = dictionaries.TopK.create(jax.random.key(2), 6, 30, 4)
    scores, exact = toy_scores(dictionary, model=low), toy_scores(dictionary, model=low.astype(jnp.float32))
    for name in ("ce_clean", "fvu", "cosine", "l1", "l2_norm_in", "kl_zero_ablated"):
        assert scores.numbers()[name] == pytest.approx(exact.numbers()[name], rel=0.05), name


def test_what_ablation_does_not_touch_has_no_share_to_recover():
    def untouched(model, tokens):
        ij.site(model[tokens], "resid", axes=("batch", "position", "d_model"))
        return model[tokens] @ model.T

    dictionary = dictionaries.TopK.create(jax.random.key(2), 6, 30, 4)
    scores = dictionaries.evaluate(untouched, "resid", dictionary, TOY, TOKENS)
    assert np.isnan(scores.ce_recovered) and np.isnan(scores.ce_recovered_zero) and scores.kl_spliced == 0


def test_refusals():
    dictionary = dictionaries.TopK.create(jax.random.key(2), 6, 30, 4)
    with pytest.raises(ValueError, match="width 5"):
        toy_scores(dictionaries.TopK.create(jax.random.key(2), 5, 30, 4))
    with pytest.raises(ValueError, match="no two real tokens"):
        toy_scores(dictionary, mask=jnp.zeros(TOKENS.shape, bool))
    with pytest.raises(ValueError, match="evaluate: batch_size=0 must be a whole number, at least 1"):
        toy_scores(dictionary, batch_size=0)
    with pytest.raises(ValueError, match="tokens float64"):
        toy_scores(dictionary, tokens=np.ones((4, 7)))
    transcoder = dictionaries.Transcoder.create(jax.random.key(2), 6, 30)
    assert toy_scores(transcoder, ("resid", "late")).n_tokens == 28
    with pytest.raises(ValueError, match="resid"):
        toy_scores(transcoder, ("late", "resid"))
