"""Path patching against three runs by hand, on a toy where a path is a product of matrices, and as an identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, patching
from interp_jax.interventions import at, replace
from tests.patching.by_hand import run

LAYERS, HEADS = 3, 2
METRIC = metrics.logit_diff(jnp.array([1, 2]), jnp.array([4, 5]))


def last(model, tokens):
    return models.forward(model, tokens)[:, -1]


@pytest.fixture(scope="module")
def model():
    config = models.Config(n_layers=LAYERS, n_heads=HEADS, d_model=8, d_mlp=12, d_vocab=23, n_ctx=8)
    return models.stack_layers(jittered(models.Decoder.create(jax.random.key(0), config)))


def jittered(model):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.4 * rng.normal(size=leaf.shape), leaf.dtype), model)


@pytest.fixture(scope="module")
def pair():
    return jax.random.randint(jax.random.key(1), (2, 2, 5), 0, 23)


def by_hand(model, clean, corrupted, sender, receivers, *, freeze_mlps=True):
    """Wang et al.'s steps: `sender` and `receivers` are keys of what `by_hand.run` may be given."""
    w = models.weights(model)
    theirs, base = run(w, clean)[1], run(w, corrupted)[1]
    kinds = ("z", "mlp_out") if freeze_mlps else ("z",)
    frozen = {key: value for key, value in base.items() if key[0] in kinds}
    logits, direct = run(w, corrupted, frozen | {sender: theirs[sender]})
    if receivers:
        logits = run(w, corrupted, {key: direct[key] for key in receivers})[0]
    return METRIC(jnp.asarray(logits[:, -1])).mean()


@pytest.mark.parametrize(
    ("to", "keys", "freeze_mlps"),
    [
        ("q 2.1", [("q_input", 2, 1)], True),
        pytest.param(
            ["head 1.0", "v 2.1"],
            [("q_input", 1, 0), ("k_input", 1, 0), ("v_input", 1, 0), ("v_input", 2, 1)],
            True,
            marks=pytest.mark.long,
        ),
        pytest.param("mlp 1", [("mlp_in", 1)], True, marks=pytest.mark.long),
        ("logits", [], True),
        pytest.param("v 2.0", [("v_input", 2, 0)], False, marks=pytest.mark.long),
    ],
)
def test_three_runs_by_hand(model, pair, to, keys, freeze_mlps) -> None:
    heads = patching.path_patch(last, METRIC, "blocks.attn.z", to, freeze_mlps=freeze_mlps, chunk=4)(model, *pair)
    wanted = [
        [by_hand(model, *pair, ("z", layer, head), keys, freeze_mlps=freeze_mlps) for head in range(HEADS)]
        for layer in range(LAYERS)
    ]
    assert np.ptp(wanted) > 1e-2
    np.testing.assert_allclose(heads, wanted, atol=2e-5)
    mlps = patching.path_patch(last, METRIC, "blocks.mlp_out", to, "layer", freeze_mlps=freeze_mlps)(model, *pair)
    wanted = [by_hand(model, *pair, ("mlp_out", layer), keys, freeze_mlps=freeze_mlps) for layer in range(LAYERS)]
    np.testing.assert_allclose(mlps, wanted, atol=2e-5)


def toy(W, flat):
    """Three MLPs that are matrices `W [layer d d]`, and the sum of the stream `[batch position d]` at the end."""
    x = ij.site(flat.reshape(len(flat), -1, 2), "embed", axes=("batch", "position", "d"))
    for layer, matrix in enumerate(W):
        here = ij.site(x, "blocks.mlp_in", layer=layer, axes=("batch", "position", "d"))
        out = ij.site(here @ matrix, "blocks.mlp_out", layer=layer, axes=("batch", "position", "d"))
        x = ij.site(x + out, "blocks.resid_post", layer=layer, axes=("batch", "position", "d"))
    return x.sum((1, 2))


def test_a_path_through_matrices_is_their_product() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    W, (clean, corrupted) = jax.random.normal(keys[0], (3, 2, 2)), jax.random.normal(keys[1], (2, 4, 6))
    change = (clean - corrupted).reshape(4, 3, 2)
    eye = jnp.eye(2)
    written = change @ (eye + W[0]) @ W[1]  # by MLP 1
    effects = patching.path_patch(toy, lambda y: y, "blocks.mlp_out", "mlp 2", "layer")(W, clean, corrupted)
    base = toy(W, corrupted).mean()
    wanted = [(x @ W[2]).sum((1, 2)).mean() for x in (change @ W[0], written)] + [0.0]
    np.testing.assert_allclose(effects - base, wanted, atol=1e-5)
    ends = patching.path_patch(toy, lambda y: y, "blocks.mlp_out", "logits", ("batch", "layer"))(W, clean, corrupted)
    np.testing.assert_allclose(ends[:, 1] - toy(W, corrupted), written.sum((1, 2)), atol=1e-5)
    embed = patching.path_patch(toy, lambda y: y, "embed", ["mlp 1", "mlp 2"], "position", put="add")
    through = change @ (W[1] @ (eye + W[2]) + W[2])  # to 1 and on to 2, and to 2 alone
    np.testing.assert_allclose(embed(W, clean, corrupted) - base, through.sum(-1).mean(0), atol=1e-5)


@pytest.mark.parametrize("scanned", [pytest.param(False, marks=pytest.mark.long), True])
def test_all_paths_of_a_sender_are_its_patch(model, pair, scanned) -> None:
    """Every edge from a head of layer 1, to all that comes after it: nothing of what it writes is left out."""
    model = model if scanned else models.unstack_layers(model)
    later = ["mlp 1", "mlp 2", *(f"head 2.{head}" for head in range(HEADS)), "logits"]
    paths = patching.path_patch(last, METRIC, "blocks.1.attn.z", later, "head", put="add")(model, *pair)
    whole = patching.activation_patch(last, METRIC, "blocks.1.attn.z", "head")(model, *pair)
    np.testing.assert_allclose(paths, whole, atol=2e-5)
    part = patching.path_patch(last, METRIC, "blocks.1.attn.z", later[1:], "head", put="add")(model, *pair)
    assert np.abs(part - whole).max() > 1e-3


@pytest.mark.long
def test_senders_of_any_form_agree_and_later_ones_do_nothing(model, pair) -> None:
    z = patching.path_patch(last, METRIC, "blocks.attn.z", "k 1.1")(model, *pair)
    result = patching.path_patch(last, METRIC, "blocks.attn.result", "k 1.1")(model, *pair)
    np.testing.assert_allclose(z, result, atol=2e-5)
    base = METRIC(last(model, pair[1])).mean()
    np.testing.assert_allclose(z[1:], base, atol=2e-5)
    one = patching.path_patch(last, METRIC, "blocks.0.attn.z", "k 1.1", "head")(model, *pair)
    np.testing.assert_allclose(one, z[0], atol=2e-5)
    same = patching.path_patch(last, METRIC, "blocks.attn_out", "mlp 2", "layer")(model, pair[1], pair[1])
    np.testing.assert_allclose(same, base, atol=2e-5)


def grouped(n_layers=2):
    """Gemma's two norms a part, and two query heads that share a key-value head."""
    config = models.Config(
        n_layers=n_layers, n_heads=4, n_kv_heads=2, d_model=8, d_mlp=12, d_vocab=23, n_ctx=8, gated=True, act="silu",
        norm="rmsnorm", norms="both", positions="rotary", attn_bias=False, mlp_bias=False,
    )  # fmt: skip
    return jittered(models.Decoder.create(jax.random.key(0), config))


@pytest.mark.parametrize("to", [("k 1.3",), pytest.param(("v 1.0", "v 1.1"), marks=pytest.mark.long)])
def test_key_value_heads_by_the_names_of_their_queries(pair, to) -> None:
    """A key or a value that query heads share goes by the name of any of them, and by all of them is still one."""
    model, site, shared = grouped(), f"blocks.1.{to[0][0]}_input", int(to[0][-1]) // 2
    got = patching.path_patch(last, METRIC, "blocks.attn.z", to)(model, *pair)
    clean, base = (ij.capture(last, ["blocks.attn.z", "blocks.mlp_out"], output=False)(model, x) for x in pair)
    hold = {name: replace(value) for name, value in base.items()}
    for head in range(4):
        z = base["blocks.attn.z"].at[0, :, :, head].set(clean["blocks.attn.z"][0, :, :, head])
        direct = ij.intervene(last, hold | {"blocks.attn.z": replace(z)})
        read = ij.capture(direct, site, output=False)(model, pair[1])[site]
        output = ij.intervene(last, {site: at(replace(read), head=shared)})(model, pair[1])
        np.testing.assert_allclose(got[0, head], METRIC(output).mean(), atol=2e-5)


@pytest.mark.parametrize("name", ["v 0.4", "k 0.7", "q 0.4", "head 0.4"])
def test_heads_that_are_not_there(pair, name) -> None:
    with pytest.raises(ValueError, match=r"^path_patch: 'blocks.0.[qkv]_input' has no head [47]; it has 4"):
        jax.eval_shape(patching.path_patch(last, METRIC, "blocks.attn.z", name), grouped(1), *pair)


@pytest.mark.long
def test_under_jit_and_in_bfloat16(model, pair) -> None:
    g = patching.path_patch(last, METRIC, "blocks.attn.z", "v 2.1")
    exact = g(model, *pair)
    np.testing.assert_allclose(jax.jit(g)(model, *pair), exact, atol=2e-5)
    rough = g(jax.tree.map(lambda x: x.astype(jnp.bfloat16), model), *pair)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=2**-6 * float(jnp.abs(last(model, pair[1])).max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"where": "blocks.attn.pattern"}, "'blocks.attn.pattern' does not write to the stream; senders: embed, "),
        ({"to": "head 1"}, "unknown receiver 'head 1': name 'q 1.3'"),
        ({"to": []}, "no receiver"),
        ({"to": ["logits", "mlp 2"]}, "'logits' overwrites what other receivers do: give it alone, or put='add'"),
        ({"to": "q 1.2"}, r"'blocks.1.q_input' has no head 2; it has 2"),
        ({"to": "q 7.0"}, "has no layer 7; its layers: 0-2"),
        ({"put": "swap"}, "put='swap' is neither"),
        ({"over": ("layer", "d_mlp")}, "'d_mlp' that site 'blocks.attn.z' has not"),
        ({"chunk": 0}, "chunk=0"),
    ],
)
def test_bad_input_is_one_line(model, pair, change, message) -> None:
    options = {"where": "blocks.attn.z", "to": "mlp 2"} | change
    with pytest.raises(ValueError, match=message) as error:
        patching.path_patch(last, METRIC, **options)(model, *pair)
    assert "\n" not in str(error.value)


def test_an_encoder_is_refused(pair) -> None:
    config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=8, d_vocab=23, n_ctx=8, n_types=1, norms="residual")
    encoder = models.Encoder.create(jax.random.key(0), config)
    with pytest.raises(ValueError, match="normalizes its stream after each part"):
        patching.path_patch(last, METRIC, "blocks.attn.z", "mlp 0")(encoder, *pair)
