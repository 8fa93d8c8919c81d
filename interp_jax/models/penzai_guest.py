"""Sites in penzai models: layers that declare what passes through them, put before and after the tagged ones.

Axes get the names that the rest of this library uses and stand in its order, so that what is captured in a penzai
transformer looks like what is captured in a `Decoder`: the heads of a group and the groups are one axis, `head`.
"""

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core import site
from interp_jax.models.inputs import check_range
from interp_jax.models.tags import Path, Submodule, Tag, children, declare, walk

Array = jax.Array

NAMES = {
    "seq": "position",
    "kv_seq": "key",
    "heads": "head",
    "query_heads": "head",
    "head_groups": "head",
    "projection": "d_head",
    "embedding": "d_model",
    "neurons": "d_mlp",
    "vocabulary": "d_vocab",
}
HEADS = ("head_groups", "query_heads", "heads")
ORDER = ("seq", *HEADS, "projection", "embedding", "neurons", "vocabulary")
ATTENTION_ORDER = (*HEADS, "seq", "kv_seq")


def is_penzai(model: Any) -> bool:
    """Whether a model is a penzai layer, told without importing penzai."""
    return any(cls.__module__.startswith("penzai.") for cls in type(model).__mro__)


def submodules(model: Any) -> list[Submodule]:
    """Every layer in the model. Its transformer block's place among the blocks is its layer."""
    from penzai import pz

    nodes = dict(walk(model))
    return [
        Submodule(path, _blocks(path, nodes), node) for path, node in nodes.items() if isinstance(node, pz.nn.Layer)
    ]


def _blocks(path: Path, nodes: Mapping[Path, Any]) -> tuple[int, ...]:
    from penzai.models.transformer.model_parts import TransformerBlock

    ends = [
        n for n in range(1, len(path) + 1) if path[n - 1].isdecimal() and isinstance(nodes[path[:n]], TransformerBlock)
    ]
    return tuple(sum(isinstance(x, TransformerBlock) for x in nodes[path[: n - 1]][: int(path[n - 1])]) for n in ends)


def frozen(model: Any) -> Any:
    """The model with its parameters as plain arrays. Raises ValueError where it keeps state."""
    from penzai import pz

    _, state = pz.unbind_state_vars(model)
    if state:
        raise ValueError(
            f"tag: the model has the state variable {state[0].label!r}, and a forward pass keeps no state: tag the "
            "model as it is before caches or random streams are put in"
        )
    return pz.freeze_params(model)


def put(model: Any, tags: Mapping[Path, tuple[Tag, ...]]) -> Any:
    """`model` with sites at the tagged layers; a language model takes tokens and masks as `forward` does."""
    from penzai import pz
    from penzai.models.transformer.model_parts import TransformerLM

    _check_stacks(model, tags)
    whole = isinstance(model, TransformerLM)
    if whole and () in tags:  # the class stays, and its body reads and returns the same
        tags = {**tags, ("body",): (*tags.get(("body",), ()), *tags[()])}
        tags.pop(())

    above = {path[:n] for path in tags for n in range(len(path))}

    def rebuilt(node: Any, path: Path) -> Any:
        if path in above:
            tree = jax.tree.structure(node, is_leaf=lambda x: x is not node)
            node = jax.tree.unflatten(tree, [rebuilt(child, (*path, key)) for key, child in children(node)])
        here = tags.get(path, ())
        before, after = ([Site(t.name, t.layer) for t in here if t.of_input is side] for side in (True, False))
        layers: list[Any] = [*before, node, *after]
        return pz.nn.Sequential(layers) if here else node

    model = rebuilt(model, ())
    return _language_model()(model.body, model.metadata) if whole else model


def _check_stacks(model: Any, tags: Mapping[Path, tuple[Tag, ...]]) -> None:
    """A site stands in the scan of a layer stack everywhere or nowhere."""
    from penzai import pz

    nodes = dict(walk(model))
    first: dict[str, tuple[int, Path]] = {}
    for path, here in tags.items():
        stacks = sum(isinstance(nodes[path[:n]], pz.nn.LayerStack) for n in range(len(path)))
        for tag in here:
            before, other = first.setdefault(tag.name, (stacks, path))
            if before != stacks:
                raise ValueError(
                    f"tag: {tag.name!r}: some of its submodules stand in a layer stack and some do not "
                    f"({'.'.join(other)} and {'.'.join(path)}): give each kind a name of its own"
                )


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["name", "layer"])
@dataclass(frozen=True)
class Site:
    """A layer without parameters that declares its input as a site."""

    name: str
    layer: int | None

    def __call__(self, value: Any, /, **side_inputs: Any) -> Any:
        one = partial(self._declare, positions=side_inputs.get("token_positions"))
        return declare(value, self.name, one, is_leaf=lambda x: hasattr(x, "named_shape"))

    def _declare(self, x: Any, name: str, positions: Any) -> Any:
        if not hasattr(x, "named_shape"):
            return site(x, name, layer=self.layer)
        known = ATTENTION_ORDER if "kv_seq" in x.named_shape else ORDER
        order = sorted(x.named_shape, key=lambda n: (known.index(n) + 1 if n in known else 0, str(n)))
        ordered = x.order_as(*order)
        axes, shape = _axes(order, ordered.data_array.shape)
        value = ordered.data_array.reshape(shape)
        value = site(value, name, layer=self.layer, axes=axes, **_places(positions, axes))
        value = value.reshape(ordered.data_array.shape)
        return dataclasses.replace(ordered, data_array=value).order_like(x)


def _axes(order: list[Any], shape: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """House names of the named axes, which are the last ones, and the shape in which heads are one axis."""
    axes, sizes = [], list(shape[: len(shape) - len(order)])
    for name, size in zip(order, shape[len(sizes) :], strict=True):
        if name == "query_heads" and "head_groups" in order:
            sizes[-1] *= size
            continue
        axes.append("query" if name == "seq" and "kv_seq" in order else NAMES.get(name, str(name)))
        sizes.append(size)
    return tuple(axes), tuple(sizes)


def _places(positions: Any, axes: tuple[str, ...]) -> dict[str, Any]:
    """Of the axes that count positions, the position of index 0, negative under left padding, and how many are real."""
    counted = [axis for axis in ("position", "query", "key") if axis in axes]
    if positions is None or not counted or not {"seq"} <= set(positions.named_shape) <= {"seq", "batch"}:
        return {}
    batch = [name for name in positions.named_shape if name != "seq"]
    numbers = positions.unwrap(*batch, "seq")
    first = jnp.argmax(numbers >= 0, axis=-1)
    offset = jnp.take_along_axis(numbers, first[..., None], axis=-1)[..., 0] - first.astype(numbers.dtype)
    return {"offset": dict.fromkeys(counted, offset), "length": numbers.max(axis=-1) + 1}


@cache
def _language_model() -> type:
    """The class of a tagged transformer: made when first needed, since penzai is imported then."""
    from penzai import pz
    from penzai.models.transformer.model_parts import TransformerLM

    @pz.pytree_dataclass(has_implicitly_inherited_fields=True)
    class TaggedTransformerLM(TransformerLM):
        """A penzai language model that also takes plain tokens and a mask, and then returns plain logits."""

        def __call__(
            self, tokens: Any, *, attention_mask: Any = None, logits_at: Any = None, **side_inputs: Any
        ) -> Any:
            if hasattr(tokens, "named_shape"):
                return super().__call__(tokens, **side_inputs)
            tokens = jnp.asarray(tokens)
            _check(tokens, attention_mask, self.metadata.vocab_size)
            axes = ("batch", "seq")[-tokens.ndim :]
            if attention_mask is not None:
                side_inputs["token_positions"] = pz.nx.wrap(_positions(jnp.asarray(attention_mask))).tag(*axes)
            logits = super().__call__(pz.nx.wrap(tokens).tag(*axes), **side_inputs).unwrap(*axes, "vocabulary")
            if logits_at is None:
                return logits
            return jnp.take_along_axis(logits, jnp.asarray(logits_at)[..., None, None], axis=-2)[..., 0, :]

    return TaggedTransformerLM


def _positions(attention_mask: Array) -> Array:
    """Positions of the real tokens from 0, and -1 at padding, as penzai wants them."""
    mask = attention_mask.astype(bool)
    return jnp.where(mask, jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, -1)


def _check(tokens: Array, attention_mask: Any, d_vocab: int) -> None:
    if not jnp.issubdtype(tokens.dtype, jnp.integer) or tokens.ndim not in (1, 2):
        raise ValueError(
            f"tokens must be integers [position] or [batch position], or named, not {tokens.dtype} {tokens.shape}"
        )
    if attention_mask is not None and jnp.shape(attention_mask) != tokens.shape:
        raise ValueError(f"attention_mask has shape {jnp.shape(attention_mask)}, but tokens have {tokens.shape}")
    check_range("tokens", tokens, 0, d_vocab, f"be below d_vocab {d_vocab}; is the tokenizer the model's own?")
