"""AtP*: its parts against loops over places and layers, and that it finds what attribution patching misses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, patching
from interp_jax.interventions import at, replace

CONFIG = models.Config(
    n_layers=3, n_heads=4, n_kv_heads=2, d_model=8, d_mlp=12, d_vocab=37, n_ctx=8, family="llama", act="silu",
    gated=True, norm="rmsnorm", positions="rotary", attn_bias=False, mlp_bias=False, tie_embeddings=False,
)  # fmt: skip
METRIC = metrics.logit_diff(jnp.array([1, 2]), jnp.array([4, 5]))
PATTERN = "blocks.attn.pattern"


def last(model, tokens):
    return models.forward(model, tokens)[:, -1]


@pytest.fixture(scope="module")
def setting():
    rng = np.random.default_rng(0)
    model = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.5 * rng.normal(size=leaf.shape), leaf.dtype),
        models.Decoder.create(jax.random.key(0), CONFIG),
    )
    return model, *jax.random.randint(jax.random.key(1), (2, 2, 4), 0, 37)


def slopes(model, tokens, site, dropped):
    """d metric / d site of every example, with nothing coming back through one layer."""
    writers = [f"blocks.{dropped}.attn_out", f"blocks.{dropped}.mlp_out"]
    return ij.grads(ij.freeze(last, writers), METRIC, site)(model, tokens)[1:]


def test_gradients_are_dropped_layer_by_layer(setting) -> None:
    model, clean, corrupted = setting
    there = ij.capture(last, "blocks.attn.z", output=False)(model, clean)["blocks.attn.z"]
    wanted = 0
    for layer in range(3):
        here, slope = (found["blocks.attn.z"] for found in slopes(model, corrupted, "blocks.attn.z", layer))
        wanted = wanted + jnp.abs(((there - here) * slope).sum((-1, 2))) / 2  # [layer batch head]
    got = patching.atp_star(last, METRIC, "blocks.attn.z", ("head", "layer", "batch"))(*setting)
    np.testing.assert_allclose(got, wanted.transpose(2, 0, 1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", [pytest.param("blocks.attn.q", marks=pytest.mark.long), "blocks.attn.k"])
def test_patterns_of_queries_and_keys_are_computed(setting, where) -> None:
    """Each query or key by itself is put into the corrupted run, and the pattern that it makes is read."""
    model, clean, corrupted = setting
    there = ij.capture(last, where, output=False)(model, clean)[where]
    n_layers, _, n_positions, n_heads, _ = there.shape

    @jax.jit
    def pattern(layer, position, head):
        edit = at(replace(there), layer=layer, position=position, head=head)
        return ij.capture(ij.intervene(last, {where: edit}), PATTERN, output=False)(model, corrupted)[PATTERN][layer]

    found = [slopes(model, corrupted, PATTERN, layer) for layer in range(n_layers)]
    base, slope = found[0][0][PATTERN], [each[1][PATTERN] for each in found]
    wanted = np.zeros((n_layers, n_positions, n_heads))
    for index in np.ndindex(wanted.shape):
        change = pattern(*index) - base[index[0]]
        wanted[index] = sum(jnp.abs((change * s[index[0]]).sum((1, 2, 3))).mean() / 2 for s in slope)
    got = patching.atp_star(last, METRIC, where)(*setting)
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-6)
    scanned = patching.atp_star(last, METRIC, where)(models.stack_layers(model), clean, corrupted)
    np.testing.assert_allclose(scanned, got, rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_padding_on_the_left_is_no_place(tiny) -> None:
    """The positions are those of real tokens, so each prompt gives what it gives without its padding."""
    model = models.stack_layers(tiny.model)
    g = patching.atp_star(tiny.f, tiny.metric, "blocks.attn.k", ("batch", "layer", "position", "head"))
    together = g(model, tiny.clean, tiny.corrupted)

    def alone(model, tokens):
        return models.forward(model, tokens)[:, -1]

    metric = metrics.logit_diff(jnp.array([1]), jnp.array([4]))
    over = ("layer", "position", "head")
    single = patching.atp_star(alone, metric, "blocks.attn.k", over)(model, tiny.clean[:1, 2:], tiny.corrupted[:1, 2:])
    np.testing.assert_allclose(together[0, :, :4], single, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(together[0, :, 4:], 0)


@pytest.mark.long
@pytest.mark.parametrize("where", ["blocks.attn.q", "blocks.attn.k"])
def test_its_sizes_are_nearer_to_those_of_patching(microworld, where) -> None:
    f, metric, *args = microworld
    over = ("batch", "layer", "position", "head")
    true = patching.activation_patch(f, metric, where, over, plan="data")(*args)
    true = np.abs(true - metric(f(args[0], args[2])).reshape(-1, 1, 1, 1)).mean(0).ravel()
    mended, plain = (
        np.corrcoef(true, np.abs(method(f, metric, where, over)(*args)).mean(0).ravel())[0, 1]
        for method in (patching.atp_star, patching.attribution_patch)
    )
    assert mended > plain


def test_bad_input_is_one_line(setting) -> None:
    with pytest.raises(ValueError, match="one query or key is a layer, a position and a head"):
        patching.atp_star(last, METRIC, "blocks.attn.q", ("layer", "head"))(*setting)
    with pytest.raises(ValueError, match="the model has no site 'blocks.attn_out', where gradients are dropped"):
        f = lambda W, x: ij.site(x.astype(float), "x", axes=("batch", "position")) @ W  # noqa: E731
        patching.atp_star(f, lambda y: y, "x", ("position",))(jnp.ones(4), *setting[1:])
    with pytest.raises(ValueError, match="give pairs of the same length"):
        patching.atp_star(last, METRIC, "blocks.attn.q")(setting[0], setting[1], setting[2][:, 1:])


@pytest.mark.parametrize("where", ["blocks.attn.q", "blocks.attn.k"])
def test_saturated_attention(where) -> None:
    """Where a pattern is all or nothing, and the last layer linear in it, the estimate is what patching finds."""
    compiled = models.rasp.compile(models.rasp.induction(), "abcd", 4)
    clean, corrupted = (jnp.array([compiled.encode(x) for x in two]) for two in (("abca", "dcbd"), ("acbc", "abdd")))
    metric = metrics.logit_diff(jnp.array([2, 3]), jnp.array([3, 4]))
    over = ("batch", "layer", "position", "head")
    true = patching.activation_patch(last, metric, where, over)(compiled.model, clean, corrupted)
    true = jnp.abs(true - metric(last(compiled.model, corrupted))[:, None, None, None])
    got = patching.atp_star(last, metric, where, over)(compiled.model, clean, corrupted)
    assert (true[:, 1] > 0.5).any() and jnp.isfinite(got).all()
    np.testing.assert_allclose(got[:, 1], true[:, 1], atol=1e-4)
