"""A survey of a corpus, against the same numbers counted by hand from patterns that are stored."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import heads, models

SIZES = dict(n_layers=2, n_heads=3, d_model=12, d_mlp=8, d_vocab=9, n_ctx=12)
N, T = 13, 11


@pytest.fixture(scope="module")
def model() -> models.Decoder:
    model = models.Decoder.create(jax.random.key(0), models.Config(**SIZES))
    return jax.tree.map(lambda x: 12 * x if x.ndim > 2 else x, model)  # heads that choose


@pytest.fixture(scope="module")
def texts() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask: some padded on the left, some on the right."""
    rng = np.random.default_rng(0)
    tokens, mask = rng.integers(0, 9, (N, T)), np.ones((N, T), bool)
    mask[1, :3], mask[2, 7:], mask[5, 9:] = False, False, False
    return tokens, mask


def batches(texts, size: int = 4) -> list:
    return [tuple(part[at : at + size] for part in texts) for at in range(0, N, size)]


def patterns(model, texts) -> np.ndarray:
    """`[layer text head query key]`, zero wherever the first token or padding has a part."""
    tokens, mask = map(jnp.asarray, texts)
    read = ij.capture(models.forward, "blocks.attn.pattern", output=False)
    pattern = np.array(read(model, tokens, attention_mask=mask)["blocks.attn.pattern"], np.float64)
    for row, real in enumerate(texts[1]):
        outside = [t for t in range(T) if not real[t] or t == np.flatnonzero(real)[0]]
        pattern[:, row, :, outside], pattern[:, row, :, :, outside] = 0, 0
    return pattern


@pytest.fixture(scope="module")
def found(model, texts) -> heads.Survey:
    return heads.survey(models.forward, n_top=5, n_sampled=2, n_keys=3)(model, batches(texts))


def test_scores_by_hand(model, texts, found) -> None:
    pattern, (tokens, mask) = patterns(model, texts), texts
    sums = {name: np.zeros((2, 3)) for name in ("self", "previous", "induction")}
    queries = {name: set() for name in sums}
    for row in range(N):
        seen = np.flatnonzero(mask[row])[1:]
        for t, s in itertools.product(seen, seen):
            kinds = {"self": s == t, "previous": s == t - 1}
            kinds["induction"] = s < t and s > seen[0] and tokens[row, s - 1] == tokens[row, t]
            for name in [name for name, there in kinds.items() if there]:
                sums[name] += pattern[:, row, :, t, s]
                queries[name].add((row, t))
    for name, total in sums.items():
        np.testing.assert_allclose(found.scores[name], total / len(queries[name]), rtol=1e-4, err_msg=name)
    given = pattern.sum(-1)
    inside = pattern / np.where(given > 0, given, 1)[..., None]
    entropy = -(inside * np.log(np.where(inside > 0, inside, 1))).sum(-1)
    np.testing.assert_allclose(found.scores["entropy"], np.average(entropy, (1, 3), given), rtol=1e-4)
    away = np.abs(np.arange(T)[:, None] - np.arange(T))
    for layer, head in np.ndindex(2, 3):
        weights = pattern[layer, :, head]
        mean = np.average(np.broadcast_to(away, weights.shape), weights=weights)
        variance = np.average(np.broadcast_to((away - mean) ** 2, weights.shape), weights=weights)
        np.testing.assert_allclose(found.scores["distance"][layer, head], mean, rtol=1e-4)
        np.testing.assert_allclose(found.scores["distance_variance"][layer, head], variance, rtol=1e-3)
    assert (found.n_sequences, found.n_queries) == (N, int(mask.sum()) - N)
    np.testing.assert_allclose(found.share, given.sum((1, 3)) / found.n_queries, rtol=1e-4)


def test_the_highest_peaks_come_first(model, texts, found) -> None:
    peaks = patterns(model, texts).max(-1)  # [layer text head query]
    for layer, head in np.ndindex(2, 3):
        of_text = peaks[layer, :, head].max(-1)
        order = np.argsort(-of_text, kind="stable")[:5]
        np.testing.assert_allclose(found.top.peak[layer, head], of_text[order], rtol=1e-5)
        np.testing.assert_array_equal(found.top.sequence[layer, head], order)
        np.testing.assert_array_equal(found.top.position[layer, head], peaks[layer, order, head].argmax(-1))


def test_examples_are_what_they_say(model, texts, found) -> None:
    """Each is of its fifth, of another text than its neighbours, with the keys that most goes to."""
    pattern = patterns(model, texts)
    there = 0
    for layer, head, fifth in np.ndindex(2, 3, 5):
        examples = jax.tree.map(lambda x, at=(layer, head, fifth): x[at], found.sampled)
        inside = (pattern[layer, :, head].max(-1) > max(fifth / 5, 0.005)) & (
            pattern[layer, :, head].max(-1) <= (fifth + 1) / 5
        )
        assert (examples.sequence >= 0).sum() == min(2, inside.any(-1).sum())
        assert len(set(examples.sequence[examples.sequence >= 0])) == (examples.sequence >= 0).sum()
        for i in np.flatnonzero(examples.sequence >= 0):
            row = pattern[layer, examples.sequence[i], head, examples.position[i]]
            assert inside[examples.sequence[i], examples.position[i]]
            want = np.sort(row)[::-1][:3]
            np.testing.assert_allclose(examples.weights[i], np.where(want > 0.005, want, 0), atol=1e-5)
            kept = examples.weights[i] > 0
            np.testing.assert_allclose(row[examples.keys[i][kept]], examples.weights[i][kept], atol=1e-5)
            there += 1
    assert there > 20
    places = found.places(1, 2)
    assert len(places) == len({tuple(place) for place in places}) and (places >= 0).all()


def test_how_it_is_cut_into_batches_does_not_matter(model, texts, found) -> None:
    whole = heads.survey(models.forward, n_top=5, n_sampled=2, n_keys=3)(model, [texts])
    for name, scores in found.scores.items():
        np.testing.assert_allclose(whole.scores[name], scores, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(whole.top.sequence, found.top.sequence)
    again = heads.survey(models.forward, n_top=5, n_sampled=2, n_keys=3)(model, batches(texts))
    np.testing.assert_array_equal(again.sampled.sequence, found.sampled.sequence)


def test_looped_scanned_half_and_sharded(model, texts) -> None:
    tokens = jnp.asarray(texts[0][:8])
    read = heads.survey(models.forward)
    plain = read(model, [tokens])
    scanned = read(models.stack_layers(model), [tokens])
    half = read(jax.tree.map(lambda x: x.astype(jnp.bfloat16), model), [tokens])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(tokens, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    sharded = read(model, [split])
    for name, scores in plain.scores.items():
        np.testing.assert_allclose(scanned.scores[name], scores, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(sharded.scores[name], scores, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(half.scores[name], scores, rtol=0.1, atol=0.1, err_msg=name)
    np.testing.assert_array_equal(sharded.top.sequence, plain.top.sequence)


def test_fewer_texts_than_examples(model) -> None:
    found = heads.survey(models.forward)(model, [jnp.array([[1, 2, 3]])])
    assert (found.top.sequence[..., 0] == 0).all() and (found.top.sequence[..., 1:] == -1).all()
    assert not found.top.weights[..., 1:, :].any() and found.top.keys.shape == (2, 3, 10, 8)
    assert np.isnan(found.scores["induction"]).all() and np.isfinite(found.scores["self"]).all()


def test_what_a_head_writes_adds_up(model, texts) -> None:
    tokens, position = jnp.asarray(texts[0][:4]), jnp.array([0, 3, 10, 5])
    out = sum(heads.head_output(models.forward, 1, head)(model, tokens, position) for head in range(3))
    want = ij.capture(models.forward, "blocks.1.attn_out", output=False)(model, tokens)["blocks.1.attn_out"]
    bias = models.weights(model)["b_O"][1]
    np.testing.assert_allclose(out + bias, want[jnp.arange(4), position], atol=1e-4)
    with pytest.raises(ValueError, match="head=3 of 3 heads"):
        heads.head_output(models.forward, 1, 3)(model, tokens, position)


def test_known_heads_come_first() -> None:
    """Planted: one that looks everywhere alike, one at the token before, one after the earlier equal token."""
    tokens = jnp.tile(jax.random.permutation(jax.random.key(0), 20)[:8] + 1, (3, 2))
    before = jnp.eye(16, k=-1).at[0, 0].set(1)
    after = jnp.eye(16, k=-7) + jnp.where(jnp.arange(16)[:, None] < 7, jnp.eye(1, 16), 0)
    even = jnp.tril(jnp.ones((16, 16))) / jnp.arange(1.0, 17)[:, None]
    planted = jnp.stack([even, before, after])[None].repeat(3, 0)

    def f(_, tokens):
        return ij.site(planted, "blocks.attn.pattern", layer=0, axes=("batch", "head", "query", "key"))

    found = heads.survey(f)(None, [tokens])
    assert found.first("previous") == (0, 1) and found.first("induction") == (0, 2)
    assert found.scores["previous"][0, 1] == 1 and found.scores["induction"][0, 2] == 1
    assert found.scores["distance"][0, 1:].tolist() == [1, 7] and not found.scores["distance_variance"][0, 1:].any()
    assert found.scores["entropy"].argmax() == 0 and np.abs(found.scores["entropy"][0, 1:]).max() < 1e-5


def test_bad_input(model) -> None:
    with pytest.raises(ValueError, match="survey: there is no batch"):
        heads.survey(models.forward)(model, [])
    with pytest.raises(ValueError, match=r"survey: tokens of shape \[1, 3\] and a mask of \[1, 2\]"):
        heads.survey(models.forward)(model, [(jnp.ones((1, 3), int), jnp.ones((1, 2), bool))])
    with pytest.raises(ValueError, match="n_keys=0: it must be at least 1"):
        heads.survey(models.forward, n_keys=0)
