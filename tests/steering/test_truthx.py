"""TruthX: its loss beside a recomputation in numpy, what it learns of planted truths, its edits beside the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models, steering

SITE = "blocks.attn_out"
N_LAYERS, WIDTH = 3, 16


@pytest.fixture(scope="module")
def sides():
    """Pairs that share all but one direction, another one at each layer."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(N_LAYERS, 48, WIDTH))
    moved = 2 * np.eye(WIDTH)[:N_LAYERS][:, None]
    return [{SITE: (shared + sign * moved).astype(np.float32)} for sign in (1, -1)]


@pytest.fixture(scope="module")
def trained(sides):
    return steering.train_truthx(jax.random.key(0), *sides, widths=(24, 12), n_steps=150, n_pairs=24)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_loss_is_its_four_parts_by_hand(sides, trained):
    autoencoder, tau = trained[0].autoencoder, 0.1
    a, b = (jnp.asarray(side[SITE][0, :5]) for side in sides)
    total, parts = steering.truthx_loss(autoencoder, a, b, tau)
    (s_a, t_a), (s_b, t_b) = (tuple(map(np.asarray, autoencoder.encode(x))) for x in (a, b))

    def mse(s, t, x):
        return float(np.mean((np.asarray(autoencoder.decode(jnp.asarray(s), jnp.asarray(t))) - np.asarray(x)) ** 2))

    def contrast(one, positives, negatives):
        near, far = (sum(np.exp(cosine(one, x) / tau) for x in some) for some in (positives, negatives))
        return -np.log(near / (near + far))

    truth = meaning = 0.0
    for s, t, s_other, t_other in ((s_a, t_a, s_b, t_b), (s_b, t_b, s_a, t_a)):
        for i in range(5):
            rest = [j for j in range(5) if j != i]
            truth += contrast(t[i], t[rest], t_other) / 5
            meaning += contrast(s[i], [s_other[i]], [*s[rest], *s_other[rest]]) / 5
    wanted = {
        "reconstruction": mse(s_a, t_a, a) + mse(s_b, t_b, b),
        "truth": truth,
        "meaning": meaning,
        "editing": mse(s_a, t_b, b) + mse(s_b, t_a, a),
    }
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(wanted, rel=1e-4)
    assert float(total) == pytest.approx(sum(wanted.values()), rel=1e-4)


def test_planted_truths_are_learnt(sides, trained):
    truthx, losses = trained
    assert losses["editing"][-1] < losses["editing"][0] / 2 and losses["truth"][-1] < losses["truth"][0]
    for side, sign in zip(sides, (1, -1), strict=True):
        assert ((sign * np.asarray(truthx.tell(side)[SITE]) > 0).mean(1) > 0.95).all()


def test_the_edit_is_the_papers_formula(model, tokens, trained):
    truthx, net = trained[0], trained[0].autoencoder
    x = ij.capture(models.forward, SITE, output=False)(model, tokens)[SITE]

    def edited(**options):
        f = ij.intervene(models.forward, truthx.edits(0.7, **options))
        return np.asarray(ij.capture(f, SITE, output=False)(model, tokens)[SITE])

    scale, delta = truthx.scale[SITE][0], truthx.delta[SITE][0]
    s, t = net.encode(x[0] / scale)
    ends = [t + sign * delta for sign in (1, -1)]
    one, two = (net.decode(s, end / jnp.linalg.norm(end, axis=-1, keepdims=True)) for end in ends)
    change = np.asarray(scale * (one - two))
    np.testing.assert_allclose(edited()[0], x[0] + 0.7 * change, atol=1e-4)
    sized = edited(form="match_norm")[0] - x[0]
    np.testing.assert_allclose(np.linalg.norm(sized, axis=-1), 0.7 * np.linalg.norm(x[0], axis=-1), rtol=1e-4)


def test_places_that_are_not_chosen_stay(model, tokens, trained):
    """No layer, no strength: nothing; the second layer alone: the first stays, and what follows changes."""
    truthx, plain = trained[0], models.forward(model, tokens)
    nowhere = truthx.edits(3.0, where={SITE: [False] * 3})
    np.testing.assert_allclose(ij.intervene(models.forward, nowhere)(model, tokens), plain, atol=1e-6)
    np.testing.assert_allclose(ij.intervene(models.forward, truthx.edits(0.0))(model, tokens), plain, atol=1e-6)
    f = ij.intervene(models.forward, truthx.edits(3.0, where={SITE: [False, True, False]}))
    before, after = (ij.capture(g, SITE, output=False)(model, tokens)[SITE] for g in (models.forward, f))
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1], atol=1e-3)


def test_cached_steps_equal_whole_ones(model, tokens, trained):
    edits = trained[0].edits(2.0)
    out, text = models.generate(model, tokens, 3, edits=edits), tokens
    for _ in range(3):
        logits = ij.intervene(models.forward, edits)(model, text)
        text = jnp.concatenate([text, logits[:, -1:].argmax(-1).astype(jnp.int32)], axis=1)
    np.testing.assert_array_equal(out, text)


def test_what_does_not_fit_is_refused(model, tokens, sides, trained):
    truthx = trained[0]
    with pytest.raises(ValueError, match="form='mul' is none of add, match_norm"):
        truthx.edits(form="mul")
    with pytest.raises(ValueError, match="give one finite number"):
        truthx.edits(float("nan"))
    with pytest.raises(ValueError, match=r"give \[layer\] for each site of blocks.attn_out"):
        truthx.edits(where={SITE: [True]})
    with pytest.raises(ValueError, match="it is of another model or site"):
        ij.intervene(models.forward, {"blocks.mlp.post": truthx.edits()[SITE]})(model, tokens)
    with pytest.raises(ValueError, match="with two pairs or more"):
        steering.train_truthx(jax.random.key(0), sides[0], {SITE: sides[1][SITE][:, :3]}, widths=(4, 2))
