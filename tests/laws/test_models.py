"""Laws 12 and 16: what holds of every family of models, alone and in a batch, with the cache and without."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from interp_jax import models, patching
from interp_jax.models import ops
from tests.models.conftest import CONFIGS, random_model

SITE = "blocks.1.resid_post"
TOKENS = np.array([[5, 9, 11, 2, 30, 7], [3, 4, 8, 8, 1, 6]], np.int32)
LENGTHS = [4, 6]


def padded(side: str) -> tuple[np.ndarray, np.ndarray]:
    """The first four tokens of the first row, padded to six, and the second row."""
    mask = np.ones(TOKENS.shape, bool)
    mask[0, slice(0, 2) if side == "left" else slice(4, 6)] = False
    tokens = np.full_like(TOKENS, 1)
    for row, here, there in zip(TOKENS, mask, tokens, strict=True):
        there[here] = row[: here.sum()]
    return tokens, mask


@pytest.mark.parametrize("family", CONFIGS)
def test_what_the_sites_add_up_to(family: str) -> None:
    model = random_model(CONFIGS[family])
    config, w = model.config, models.weights(model)
    _, acts = ij.capture(models.forward, "blocks.*")(model, TOKENS)
    here = {name.removeprefix("blocks."): value for name, value in acts.items()}
    shared = config.n_heads // config.n_kv_heads
    values = jnp.repeat(here["attn.v"], shared, axis=-2)
    z = jnp.einsum("lbhqk,lbkhd->lbqhd", here["attn.pattern"], values)
    np.testing.assert_allclose(here["attn.z"], z, atol=1e-5)
    np.testing.assert_allclose(here["attn.pattern"].sum(-1), jnp.ones(z.shape[:2] + (config.n_heads, 6)), atol=1e-5)
    heads = here["attn.result"].sum(-2) + (w["b_O"][:, None, None] if "b_O" in w else 0.0)
    written = jnp.einsum("lbpm,lmd->lbpd", here["mlp.post"], w["W_out"])
    written = written + (w["b_out"][:, None, None] if "b_out" in w else 0.0)

    def after(kind: str, x: jax.Array) -> jax.Array:
        """A norm that stands between a part and the stream."""
        if f"{kind}.normalized" not in here or not kind.endswith("post"):
            return x
        centred, scale = ops.centre(x, config.norm, config.norm_eps)
        return ops.divide(centred, scale, x.dtype) * w[f"{kind}_w"][:, None, None]

    np.testing.assert_allclose(here["attn_out"], after("ln1_post", heads), atol=1e-4)
    np.testing.assert_allclose(here["mlp_out"], after("ln2_post", written), atol=1e-4)
    stream = here["resid_pre"] + here["attn_out"]
    if "resid_mid" in here:
        np.testing.assert_allclose(here["resid_mid"], stream, atol=1e-5)
    if family == "bert":  # the stream is normalized between the two
        stream = here["ln1.normalized"] * w["ln1_w"][:, None, None] + w["ln1_b"][:, None, None]
    np.testing.assert_allclose(here["resid_post"], stream + here["mlp_out"], atol=1e-5)


EDITS: dict[str, Any] = {
    "first": iv.at(iv.add(3.0), position=0),
    "last": iv.at(iv.add(3.0), position=-1),
    "last but one": iv.at(lambda x: -x, position=jnp.int32(-2)),
    "third": iv.at(iv.zero(), position=2),
    "all": lambda x: 2 * x,
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "family", ["llama", pytest.param("gemma", marks=pytest.mark.long), pytest.param("gpt2", marks=pytest.mark.long)]
)
def test_a_batch_gives_what_each_sequence_gives_alone(family: str, side: str) -> None:
    model = random_model(CONFIGS[family])
    tokens, mask = padded(side)

    @jax.jit
    def run(tokens: Any, mask: Any, last: Any) -> Any:
        f = partial(models.forward, attention_mask=mask, logits_at=last)
        return {name: ij.intervene(f, {SITE: edit})(model, tokens) for name, edit in EDITS.items()}

    last = jnp.array([5 if side == "left" else 3, 5])
    together = run(tokens, mask, last)
    for row, n in enumerate(LENGTHS):
        alone = run(TOKENS[row : row + 1, :n], np.ones((1, n), bool), jnp.array([n - 1]))
        for name, logits in alone.items():
            np.testing.assert_allclose(together[name][row], logits[0], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_no_value(side: str) -> None:
    model = random_model(CONFIGS["llama"])
    tokens, mask = padded(side)
    other = np.where(mask, tokens, 17)
    run = jax.jit(
        lambda tokens: ij.intervene(partial(models.forward, attention_mask=mask), {SITE: iv.mean_ablate()})(
            model, tokens
        )
    )
    np.testing.assert_array_equal(np.asarray(run(tokens))[mask], np.asarray(run(other))[mask])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "where",
    ["blocks.attn.attn_scores", *(pytest.param(f"blocks.attn.{s}", marks=pytest.mark.long) for s in ("pattern", "q"))],
)
def test_slopes_are_numbers_where_scores_are_masked(where: str, side: str) -> None:
    model = random_model(CONFIGS["llama"])
    tokens, mask = padded(side)
    f = partial(models.forward, attention_mask=mask, logits_at=np.where(mask, np.arange(6), 0).max(1))
    metric = lambda logits: logits[:, 3] - logits[:, 5]  # noqa: E731
    assert jnp.isfinite(jax.jit(ij.grads(f, metric, where))(model, tokens)[2][where]).all()
    corrupted = np.where(tokens == 9, 12, tokens)
    estimated = patching.attribution_patch(f, metric, where, ("layer", "head"))(model, tokens, corrupted)
    patched = patching.activation_patch(f, metric, where, ("layer", "head"))(model, tokens, corrupted)
    assert jnp.isfinite(estimated).all() and jnp.isfinite(patched).all() and jnp.abs(estimated).sum() > 0


# Generation. Each edit by itself is compared with the whole sequence run anew in tests/models/test_generation.py.

D = CONFIGS["llama"].d_model
ALIKE = {
    "vector": iv.add(2.0 * jnp.ones(D)),
    "function": lambda x: jnp.tanh(x) * 2 - x.reshape(-1, D).reshape(x.shape),
    "feature": lambda x: x.at[..., 3].set(5.0),
    "norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "via": iv.via({"a": "blocks.0.resid_post"}, lambda x, a: x - 2 * a),
    "ragged": iv.at(iv.add(9.0), position=[1, 3]),
    "function at a position": iv.at(lambda x: -3 * x, position=2),
    "of the text to come": iv.at(iv.scale(-2.0), position=7),
    "a mean": iv.mean_ablate(jnp.ones(D)),
}


@pytest.mark.parametrize("scan_layers", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "kind", [kind if i < 6 else pytest.param(kind, marks=pytest.mark.long) for i, kind in enumerate(ALIKE)]
)
def test_an_edit_with_the_cache_is_the_edit_without_it(kind: str, scan_layers: bool) -> None:
    model = decoder(scan_layers)
    tokens, mask = padded("left")
    new = np.asarray(models.generate(model, tokens, 4, attention_mask=mask, edits={SITE: ALIKE[kind]}))[:, 6:]
    whole, full = tokens, mask
    for step in range(4):
        width = np.zeros((2, 4 - step), np.int32)
        f = partial(models.forward, attention_mask=np.concatenate([full, width.astype(bool)], 1))
        logits = ij.intervene(f, {SITE: ALIKE[kind]})(model, np.concatenate([whole, width], 1))
        chosen = np.asarray(logits[:, 5 + step].argmax(-1), np.int32)[:, None]
        np.testing.assert_array_equal(new[:, step : step + 1], chosen)
        whole, full = np.concatenate([whole, chosen], 1), np.concatenate([full, np.ones((2, 1), bool)], 1)


def decoder(scan_layers: bool = False) -> Any:
    config = CONFIGS["llama"]
    return models.Decoder.create(jax.random.key(1), config, scan_layers=scan_layers)


REFUSED = {
    "a column": (lambda x: x.at[:, 2].add(1.0), r"same at each place along 'position'.*at\(..., position=\)"),
    "the last column": (lambda x: x.at[:, -1].add(1.0), "same at each place"),
    "a column of keys": ({"blocks.attn.pattern": lambda p: p.at[..., 0].set(0.0)}, "same at each place along 'key'"),
    "other positions": (lambda x: x - x.mean(1, keepdims=True), "same at each place"),
    "via": (iv.via({"a": "blocks.0.resid_post"}, lambda x, a: x + a[:, :1]), "same at each place"),
    "the batch's mean": (iv.mean_ablate(), "pass the mean"),
    "the prompt's values": (iv.replace(jnp.ones((2, 6, D))), r"shape \(2, 6, 16\) has several places along 'position'"),
    "layers of them": (iv.add(jnp.ones((3, 2, 6, D))), "several places along 'position'"),
    "noise": (iv.noise(jax.random.key(0)), "another draw with each new token"),
    "too far": (iv.at(iv.zero(), position=10), "10 is out of range"),
    "from the end": (iv.at(iv.zero(), position=-1), "-1 is out of range"),
    "one row too far": (iv.chain(iv.at(iv.zero(), position=[1, 50])), "50 is out of range"),
    "a mask": (iv.at(iv.zero(), mask=padded("left")[1]), "a mask is of one call"),
    "a head": ({"blocks.attn.z": iv.at(iv.zero(), head=4)}, "head=4 is out of range"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_edit_that_would_be_another_with_the_cache_is_refused(kind: str) -> None:
    edit, words = REFUSED[kind]
    tokens, mask = padded("left")
    edits = edit if isinstance(edit, dict) else {SITE: edit}
    with pytest.raises(ValueError, match=words) as error:
        models.generate(decoder(), tokens, 4, attention_mask=mask, edits=edits)
    assert "\n" not in str(error.value)
