"""Guests: sites for models that somebody else wrote, without a change to their source."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from interp_jax.models import nnx_guest, penzai_guest
from interp_jax.models.tags import tags


def tag(
    model: Any,
    outputs: Mapping[str, Any],
    *,
    inputs: Mapping[str, Any] | None = None,
    axes: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """A copy of a flax nnx or penzai model with sites at its submodules: a pytree, called as the model is.

    The weights stay where they are and `model` is not changed. A plain function needs no tags: it calls
    `interp_jax.site` where it likes.

    A submodule is found by its path, `"head"` or `"blocks.*.mlp"` (`*` stands for one part, `**` for any number of
    them), or by its class, which means every submodule of it. What is in a scanned stack (`nnx.scan`, penzai's
    `LayerStack`) has the scan's layers. Elsewhere the layer is the number in the path (of a `TransformerBlock` of
    penzai, its place among them), where that number alone tells the matches apart; otherwise the matches are counted.
    A path without `*` has no layer, but its site may: `{"blocks.2.mlp_out": "last_block.mlp"}`.

    A submodule that returns several arrays declares each: `name.key` of a dict, `name.part0`, `name.part1` of a tuple.
    One that a call runs twice would declare a site twice, which the transforms refuse: tag what is around it.

    The axes of penzai's arrays get this library's names and order, and its language models also take plain tokens
    `[position]` or `[batch position]` with `attention_mask` and `logits_at`, as `forward` does.

    Args:
      model: a `flax.nnx.Module` or a `penzai.pz.nn.Layer`.
      outputs: site -> path or class of the submodule that returns the value.
      inputs: site -> path or class of the submodule whose first argument is the value.
      axes: site -> names of its axes, such as `("batch", "position", "d_model")`, so that `at(position=)` finds them.
        They are counted from the right, and a value with fewer axes (one example) has the last of them. Not for
        penzai, whose arrays name their own.

    Raises:
      ValueError: a path or class matches nothing; a submodule shared by two places is tagged in both; a model that
        is no pytree, or (penzai) keeps state. When called: an nnx model whose call changes its state, such as
        dropout or batch statistics in training mode.
      TypeError: `model` is of neither library.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from flax import nnx
      >>> class Net(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(3)])
      ...     def __call__(self, x):
      ...         for block in self.blocks:
      ...             x = x + block(x)
      ...         return x
      >>> model = ij.models.tag(Net(nnx.Rngs(0)), {"blocks.out": "blocks.*"}, axes={"blocks.out": ["d_model"]})
      >>> ij.sites(model, jnp.ones(4))
      site        layers  shape  axes     dtype
      ----------  ------  -----  -------  -------
      blocks.out  0-2     4      d_model  float32
      >>> ij.capture(lambda model, x: model(x), "blocks.1.out", output=False)(model, jnp.ones(4))["blocks.1.out"].shape
      (4,)
    """
    wanted = (outputs, inputs or {}, axes or {})
    if isinstance(model, nnx.Module):
        model = nnx_guest.copied(model)
        return nnx_guest.put(model, tags(nnx_guest.submodules(model), *wanted))
    if penzai_guest.is_penzai(model):
        if axes:
            raise ValueError("tag: the arrays of a penzai model name their own axes: leave axes= out")
        model = penzai_guest.frozen(model)
        return penzai_guest.put(model, tags(penzai_guest.submodules(model), *wanted))
    raise TypeError(
        f"tag: expected a flax nnx module or a penzai layer, not {type(model).__name__}; "
        "a plain function calls interp_jax.site where it likes"
    )
