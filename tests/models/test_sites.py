"""What the sites of the decoder mean, and that the costly ones are the same computation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import at, replace, scale
from interp_jax.models import Decoder

COMMON = """embed blocks.resid_pre blocks.resid_mid blocks.resid_post blocks.attn_in blocks.mlp_in blocks.attn_out
blocks.mlp_out blocks.attn.q blocks.attn.k blocks.attn.v blocks.attn.attn_scores blocks.attn.pattern blocks.attn.z
blocks.attn.result blocks.q_input blocks.k_input blocks.v_input blocks.mlp.pre blocks.mlp.post blocks.ln1.scale
blocks.ln1.normalized blocks.ln2.scale blocks.ln2.normalized ln_final.scale ln_final.normalized unembed.in unembed.out
logits""".split()
ONLY = {"gpt2": ["pos_embed"], "llama": ["blocks.attn.rot_q", "blocks.attn.rot_k", "blocks.mlp.pre_linear"]}


def close(a: jax.Array, b: jax.Array) -> None:
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_the_catalogue(model: Decoder, prompts: tuple) -> None:
    found = ij.sites(models.forward, model, prompts[0])
    assert set(found) == {*COMMON, *ONLY[model.config.family]}
    assert found["blocks.attn.pattern"].axes == ("batch", "head", "query", "key")
    assert found["blocks.attn.k"].shape == (3, 7, model.config.n_kv_heads, model.config.d_head)
    assert found["blocks.attn.result"].shape == (3, 7, 4, 16)
    assert found["blocks.ln1.scale"].shape == (3, 7, 1)
    assert tuple(found["blocks.resid_post"].layers) == (0, 1, 2)
    single = ij.sites(models.forward, model, prompts[0][0])
    assert single["blocks.q_input"].axes == ("position", "head", "d_model")


def test_replacing_each_site_by_itself_changes_nothing(model: Decoder, prompts: tuple) -> None:
    f = partial(models.forward, attention_mask=prompts[1])
    out, acts = ij.capture(f, "*")(model, prompts[0])
    close(out, f(model, prompts[0]))
    every = {name: replace(value) for name, value in acts.items()}
    close(ij.intervene(f, every)(model, prompts[0]), out)


def test_the_residual_stream_adds_up(model: Decoder, prompts: tuple) -> None:
    _, acts = ij.capture(models.forward, "*")(model, prompts[0])
    close(acts["blocks.resid_mid"], acts["blocks.resid_pre"] + acts["blocks.attn_out"])
    close(acts["blocks.resid_post"], acts["blocks.resid_mid"] + acts["blocks.mlp_out"])
    close(acts["blocks.resid_pre"][1:], acts["blocks.resid_post"][:-1])
    bias = models.weights(model).get("b_O", jnp.zeros((3, 16)))[:, None, None]
    close(acts["blocks.attn_out"], acts["blocks.attn.result"].sum(-2) + bias)
    close(acts["blocks.attn.pattern"], jax.nn.softmax(acts["blocks.attn.attn_scores"], axis=-1))
    assert bool(jnp.isneginf(acts["blocks.attn.attn_scores"][..., 0, 1]).all())


def test_a_head_that_reads_another_stream(model: Decoder, prompts: tuple) -> None:
    """An edit of q_input at one head is the edit of resid_pre as only that head's query sees it."""
    tokens, layer, head = prompts[0], 1, 2
    read = [f"blocks.{layer}.attn.{x}" for x in "qkv"]
    plain = ij.capture(models.forward, read, output=False)(model, tokens)
    whole = ij.intervene(models.forward, {f"blocks.{layer}.resid_pre": shift})
    moved = ij.capture(whole, read, output=False)(model, tokens)
    for kind, at_head in zip("qkv", (head, head // (4 // model.config.n_kv_heads), 1), strict=True):
        edit = {f"blocks.{layer}.{kind}_input": at(shift, head=at_head)}
        got = ij.capture(ij.intervene(models.forward, edit), read, output=False)(model, tokens)
        for name in read:
            want = plain[name]
            if name.endswith(kind):
                want = want.at[:, :, at_head].set(moved[name][:, :, at_head])
            close(got[name], want)


def shift(x: jax.Array) -> jax.Array:
    return x + jnp.arange(x.shape[-1], dtype=x.dtype) / 8


def test_attn_in_is_all_three_inputs(model: Decoder, prompts: tuple) -> None:
    a = ij.intervene(models.forward, {"blocks.1.attn_in": shift})
    b = ij.intervene(models.forward, {f"blocks.1.{x}_input": shift for x in "qkv"})
    close(a(model, prompts[0]), b(model, prompts[0]))


def test_edits_of_ln1_hold_while_the_streams_are_split(model: Decoder, prompts: tuple) -> None:
    for site in ("blocks.1.ln1.scale", "blocks.1.ln1.normalized"):
        alone = ij.intervene(models.forward, {site: scale(1.7)})
        split = ij.intervene(models.forward, {site: scale(1.7), "blocks.1.q_input": scale(1.0)})
        close(alone(model, prompts[0]), split(model, prompts[0]))


def test_mlp_in_is_what_the_mlp_alone_reads(model: Decoder, prompts: tuple) -> None:
    f = ij.intervene(models.forward, {"blocks.1.mlp_in": lambda x: 0.5 * x + 1})
    _, acts = ij.capture(f, "blocks.*")(model, prompts[0])
    close(acts["blocks.resid_post"][1], acts["blocks.resid_mid"][1] + acts["blocks.mlp_out"][1])
    close(acts["blocks.mlp_in"][1], 0.5 * acts["blocks.resid_mid"][1] + 1)


def test_positions_skip_padding(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    edit = {"blocks.1.resid_pre": at(scale(3.0), position=1)}
    together = ij.intervene(partial(models.forward, attention_mask=mask), edit)(model, tokens)
    for row, real, got in zip(tokens, mask, together, strict=True):
        close(got[real], ij.intervene(models.forward, edit)(model, row[real]))


def test_keys_skip_padding(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    edit = {"blocks.attn.pattern": at(scale(0.0), head=1, query=3, key=1)}
    together = ij.intervene(partial(models.forward, attention_mask=mask), edit)(model, tokens)
    assert not np.allclose(together[mask], models.forward(model, tokens, attention_mask=mask)[mask])
    for row, real, got in zip(tokens, mask, together, strict=True):
        close(got[real], ij.intervene(models.forward, edit)(model, row[real]))


@pytest.mark.parametrize("where", ["blocks.attn.result", "blocks.q_input"])
def test_costly_sites_are_computed_only_when_wanted(model: Decoder, prompts: tuple, where: str) -> None:
    def program(address: str) -> str:
        f = ij.capture(models.forward, address, output=False)
        return jax.jit(f).lower(model, prompts[0]).compile().as_text()

    assert "f32[3,7,4,16]" not in program("blocks.resid_post")
    assert "f32[3,7,4,16]" in program(where)
