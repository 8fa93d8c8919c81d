"""penzai's own transformers, with and without its layer stack, and edits as one makes them in penzai."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
from penzai.models.transformer.variants import gpt_neox, llamalike_common

LAYERS, D_MODEL, HEADS = 2, 8, 4
SIZES = dict(embedding_dim=D_MODEL, projection_dim=4, mlp_hidden_dim=12, num_decoder_blocks=LAYERS, vocab_size=11)


def build(family: str, key: jax.Array | None, *, stack: bool) -> Any:
    if family != "neox":
        heads = dict(num_kv_heads=2, query_head_multiplier=HEADS // 2, mlp_variant="swiglu")
        config = llamalike_common.LlamalikeTransformerConfig(
            **SIZES, **heads, tie_embedder_and_logits=family == "tied", use_layer_stack=stack
        )
        return llamalike_common.build_llamalike_transformer(config, key)
    config = gpt_neox.GPTNeoXTransformerConfig(
        **SIZES,
        num_attention_heads=HEADS,
        activation_fn="gelu_exact",
        rope_subset_size=2,
        rope_wavelength=1e4,
        layernorm_epsilon=1e-5,
        parameter_dtype=jnp.float32,
        activation_dtype=jnp.float32,
        use_layer_stack=stack,
    )
    return gpt_neox.build_gpt_neox_transformer(config, key)


def parameters(family: str, *, stack: bool) -> dict[str, Any]:
    """The shapes of penzai's parameters, by label."""
    shapes = jax.eval_shape(
        lambda key: pz.unbind_params(build(family, key, stack=stack), freeze=True)[1], jax.random.key(0)
    )
    return {p.label: p for p in shapes}


@cache
def pair(family: str) -> tuple[Any, Any]:
    """penzai's model with its blocks in a row, and in a stack, with the same weights."""
    rng = np.random.default_rng(0)
    in_row = {
        label: jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), p)
        for label, p in parameters(family, stack=False).items()
    }
    in_stack = parameters(family, stack=True)
    for label, p in in_stack.items():
        value = in_row[label].value if label in in_row else None
        if value is None:
            each = [in_row[label.replace("/blocks/", f"/block_{layer}/")].value for layer in range(LAYERS)]
            value = pz.nx.stack(each, "blocks").order_like(p.value)
        in_stack[label] = dataclasses.replace(p, value=value)
    row, stack = (build(family, None, stack=stack) for stack in (False, True))
    return pz.bind_variables(row, in_row.values()), pz.bind_variables(stack, in_stack.values())


@pz.pytree_dataclass
class Through(pz.nn.Layer):
    """A user's layer that edits what passes."""

    fn: Any = dataclasses.field(metadata={"pytree_node": False})

    def __call__(self, x: Any, **_: Any) -> Any:
        return self.fn(x)


def edited(row: Any, kind: type, fn: Any, part: Any = lambda layer: layer) -> Any:
    """The untagged model with an edit put in at layer 1, as one does in penzai."""
    chosen = pz.select(row).at_instances_of(kind).pick_nth_selected(1).at(part)
    return chosen.apply(lambda inner: pz.nn.Sequential([inner, Through(fn)]))
