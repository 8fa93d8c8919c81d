"""RASP beside tracr, the compiler of DeepMind: what its package compiles runs in our decoder, and says what ours says.

The package on PyPI is `tracr-pypi`, with `dm-haiku`; without them the test is skipped.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models
from interp_jax.models import Config, Decoder, rasp
from interp_jax.models.params import paths

pytestmark = pytest.mark.parity
compiling = pytest.importorskip("tracr.compiler.compiling")
theirs = pytest.importorskip("tracr.rasp.rasp")
lib = pytest.importorskip("tracr.compiler.lib")

LENGTH = 4
ANY = [inputs for n in range(1, LENGTH + 1) for inputs in itertools.product("abc", repeat=n)]
UNIQUE = [inputs for n in range(1, LENGTH + 1) for inputs in itertools.permutations("abcd", n)]


PROGRAMS = {
    "length": (lambda: lib.make_length(), rasp.length(), ANY),
    "histogram": (lambda: lib.make_hist(), rasp.histogram(), ANY),
    "reverse": (lambda: lib.make_reverse(theirs.tokens), rasp.reverse(), ANY),
    "sort": (lambda: lib.make_sort_unique(theirs.tokens, theirs.tokens), rasp.sort_unique(), UNIQUE),
    "shares": (lambda: lib.make_frac_prevs(theirs.tokens == "a"), rasp.frac_prevs("a"), ANY),
}


def _decoder(assembled, n_tokens: int):
    """tracr's parameters as our decoder's. Its unembedding is made when it runs: here the stream itself is put out."""
    given, shape = {k: jax.tree.map(np.asarray, v) for k, v in assembled.params.items()}, assembled.model_config
    w_e, w_pos = given["token_embed"]["embeddings"], given["pos_embed"]["embeddings"]
    config = Config(
        n_layers=shape.num_layers,
        n_heads=shape.num_heads,
        d_head=shape.key_size,
        d_model=w_e.shape[1],
        d_mlp=shape.mlp_hidden_size,
        d_vocab=w_e.shape[0],
        n_ctx=w_pos.shape[0],
        act="relu",
        norm="none",
        headless=True,
        causal=shape.causal,
    )
    leaves = {"w_e": w_e, "w_pos": w_pos}
    for layer in range(config.n_layers):
        for ours, kind in {"q": "query", "k": "key", "v": "value", "o": "linear"}.items():
            part = given[f"transformer/layer_{layer}/attn/{kind}"]
            heads = (config.n_heads, config.d_head)
            w = part["w"].reshape((*heads, -1) if ours == "o" else (-1, *heads))
            leaves[f"blocks.{layer}.attn.w_{ours}"] = w
            leaves[f"blocks.{layer}.attn.b_{ours}"] = part["b"].reshape(-1 if ours == "o" else heads)
        for ours, kind in {"in": "linear_1", "out": "linear_2"}.items():
            part = given[f"transformer/layer_{layer}/mlp/{kind}"]
            leaves |= {f"blocks.{layer}.mlp.{name}_{ours}": part[name] for name in "wb"}
    empty = Decoder.abstract(config)
    return jax.tree.unflatten(jax.tree.structure(empty), [jnp.asarray(leaves[path]) for path in paths(empty)])


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_agree(name) -> None:
    """tracr's weights give tracr's stream in our decoder; its program and ours say the same of some inputs."""
    make, program, inputs = PROGRAMS[name]
    vocabulary = sorted(set().union(*inputs))
    with jax.numpy_dtype_promotion("standard"):
        assembled = compiling.compile_rasp_to_model(make(), set(vocabulary), LENGTH, compiler_bos="BOS")
    model, ours = _decoder(assembled, len(vocabulary)), rasp.compile(program, vocabulary, LENGTH)
    chosen = np.random.default_rng(0).permutation(len(inputs))[:12]
    for x in (inputs[i] for i in chosen):
        with jax.numpy_dtype_promotion("standard"):
            ran = assembled.apply(["BOS", *x])
        tokens = jnp.array(assembled.input_encoder.encode(["BOS", *x]))
        stream = models.hidden(model, tokens)
        np.testing.assert_allclose(stream, ran.transformer_output[0], atol=1e-4)
        said = ours.decode(models.forward(ours.model, jnp.array(ours.encode(x))))
        wanted = ran.decoded[1:]
        assert said == (pytest.approx(wanted, abs=1e-4) if name == "shares" else wanted)
