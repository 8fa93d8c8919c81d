"""A replacement model: dictionaries stand in for what they reconstruct, and their features are sites.

    y = decode(features(encode(x))) + error,    error = y_0 - decode(encode(x_0))

`x_0`, `y_0` are of the original run, so that a replacement model gives exactly the original's output where nothing is
changed. Held, the errors, attention patterns and norm denominators are those of one prompt: what the features write
reaches the logits and the encoders of later features by a linear map, which an attribution graph tells.
Ameisen et al. 2025, Circuit tracing, https://transformer-circuits.pub/2025/attribution-graphs/methods.html.
With sparse heads in the place of attention the patterns are theirs, and none of the model's own is left: He et al.
2025, https://arxiv.org/abs/2504.20938.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import SiteInfo, capture, freeze, intervene, sites, split_address, transform
from interp_jax.graphs.placing import placed
from interp_jax.graphs.standing import decoding, encoding, patterns

PATTERN = "blocks.attn.pattern"


@partial(jax.tree_util.register_dataclass, data_fields=["errors", "frozen"], meta_fields=[])
@dataclass(frozen=True)
class Held:
    """What a replacement model holds of the run of one prompt. Made by `hold`.

    Attributes:
      errors: name of a written site -> what the dictionaries leave of it, `[layer *batch position d]`; all of it in a
        layer without one.
      frozen: address -> values of norm denominators and of attention patterns, the sparse heads' where there are such,
        as `capture` gives them.
    """

    errors: Mapping[str, Array]
    frozen: Mapping[str, Array]


def replace_mlps(
    f: Callable[..., Any], transcoders: Any, held: Held | None = None, *, error_gradient: bool = False
) -> Callable[..., Any]:
    """`f` with features in the place of what dictionaries stand in for, each set of them a site.

    Args:
      f: a function `(model, tokens, ...)` with sites.
      transcoders: a sequence of one transcoder for each layer; a mapping from layers, or from addresses that they
        write, to dictionaries (then others' MLPs stay as they are, or are held whole); a cross-layer transcoder. One
        that does not say where it was trained reads `blocks.mlp_in` and writes `blocks.mlp_out`. Autoencoders stand at
        their own site.
      held: None: errors, patterns and norms are those of the run itself, whatever its prompt. Else what `hold` gave:
        a run of that prompt in which nothing of these changes.
      error_gradient: whether gradients flow through errors that are not held, so that they are those of `f`; else those
        of features alone are left.

    Returns:
      A function with the signature of `f` and the same output, with two more sites for each that is written:
      `blocks.mlp_out.features`, `[*batch position feature]`, and `blocks.mlp_out.error`, to read and to edit like any
      other.

    Raises:
      TypeError: `transcoders` are no dictionaries.
      ValueError: (when called) they do not fit the model: see `transcoders`.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries, graphs, models
      >>> from interp_jax.interventions import at, scale
      >>> model, _ = models.load("microworld", dtype="float32")
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> transcoders = [dictionaries.Transcoder.create(key, model.config.d_model, 32) for key in keys]
      >>> f, tokens = graphs.replace_mlps(models.forward, transcoders), jnp.array([1, 5, 7])
      >>> bool(jnp.allclose(f(model, tokens), models.forward(model, tokens), atol=1e-4))
      True
      >>> without = ij.intervene(f, {"blocks.2.mlp_out.features": at(scale(0.0), feature=3)})
      >>> without(model, tokens).shape
      (3, 641)
    """
    return transform(_replaced, error_gradient, (f, transcoders, held), like=f)


def replace_attention(
    f: Callable[..., Any], lorsas: Any, held: Held | None = None, *, error_gradient: bool = False
) -> Callable[..., Any]:
    """`f` with sparse heads in the place of attention, and their features and where they look as sites.

    With `replace_mlps` of what it returns it is a complete replacement model, without a pattern of the model's own.

    Args:
      f: a function `(model, tokens, ...)` with sites.
      lorsas: a sequence of one `Lorsa` for each layer, or a mapping from layers to them (then others' attention stays
        as it is, or is held whole). One that does not say where it was trained reads `blocks.ln1.normalized` and writes
        `blocks.attn_out`.
      held: as in `replace_mlps`; what `hold` gave for the same heads.
      error_gradient: as in `replace_mlps`.

    Returns:
      A function with the signature of `f` and the same output, with three more sites: `blocks.attn_out.features`,
      `[*batch position feature]`, `blocks.attn_out.error` and `blocks.attn_out.pattern`, `[*batch group query key]`.

    Raises:
      TypeError, ValueError: as `replace_mlps`; a text that goes on step by step.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, _ = models.load("microworld", dtype="float32")
      >>> keys, tokens = jax.random.split(jax.random.key(0), 4), jnp.array([1, 5, 7])
      >>> lorsas = [dictionaries.Lorsa.create(key, 128, 64, 8, n_groups=4, d_qk=16) for key in keys]
      >>> transcoders = dictionaries.load_layers("microworld-transcoders", dtype="float32")
      >>> complete = graphs.replace_mlps(graphs.replace_attention(models.forward, lorsas), transcoders)
      >>> bool(jnp.allclose(complete(model, tokens), models.forward(model, tokens), atol=1e-4))
      True
    """
    return transform(_replaced, error_gradient, (f, lorsas, held), like=f)


def hold(f: Callable[..., Any], transcoders: Any, lorsas: Any = None) -> Callable[..., Held]:
    """What a replacement model holds of the run of a prompt.

    Args:
      f, transcoders: as in `replace_mlps`.
      lorsas: as in `replace_attention`, where that is done too; then no pattern of the model's own heads is held.

    Returns:
      `g(model, tokens, ...) -> Held`.

    Raises:
      TypeError, ValueError: as `replace_mlps`; (when called) the model does not say its attention patterns.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, _ = models.load("microworld")
      >>> one = dictionaries.Transcoder.create(jax.random.key(0), model.config.d_model, 32)
      >>> held = graphs.hold(models.forward, {2: one})(model, jnp.array([1, 5, 7]))
      >>> held.errors["blocks.mlp_out"].shape, held.frozen["blocks.attn.pattern"].shape
      ((4, 3, 128), (4, 4, 3, 3))
    """
    return transform(_held, None, (f, transcoders, lorsas))


def frozen_sites(known: Mapping[str, SiteInfo], *, heads: bool = False) -> tuple[str, ...]:
    """The sites that are held, of those that a model has: norm denominators and, but for sparse `heads` in attention's
    place, attention patterns.

    Raises:
      ValueError: the model does not say its attention patterns.
    """
    if PATTERN not in known and not heads:
        raise ValueError(f"graphs: no site {PATTERN!r}: what a head looks at cannot be held; name it in the model")
    return (*(() if heads else (PATTERN,)), *(name for name in known if name.endswith(".scale")))


def _replaced(error_gradient: bool, arrays: Any, *args: Any, **kwargs: Any) -> Any:
    f, transcoders, held = arrays
    known = sites(f, *args, **kwargs)
    found, errors = placed(transcoders, known), None if held is None else held.errors
    # Where sparse heads look is no site yet, and is held afterwards.
    first, last = ({}, {}) if held is None else _parted(held.frozen, known)
    g = intervene(freeze(f, tuple(first), first), encoding(found, known))
    g = intervene(g, decoding(found, known, errors, flows=error_gradient))
    return freeze(g, tuple(last), last)(*args, **kwargs)


def _parted(frozen: Mapping[str, Array], known: Mapping[str, SiteInfo]) -> tuple[dict[str, Array], dict[str, Array]]:
    """What is held of sites that are there, and of others."""
    there, others = (
        {address: x for address, x in frozen.items() if (split_address(address)[0] in known) == here}
        for here in (True, False)
    )
    return there, others


def _held(_: None, arrays: Any, *args: Any, **kwargs: Any) -> Held:
    f, transcoders, lorsas = arrays
    known = sites(f, *args, **kwargs)
    heads = [] if lorsas is None else placed(lorsas, known)
    found = [*placed(transcoders, known), *heads]
    names = dict.fromkeys(name for one in found for name in (one.read, one.written))
    frozen = (*frozen_sites(known, heads=bool(heads)), *patterns(heads, known))
    acts = capture(intervene(f, encoding(heads, known)), (*names, *frozen), output=False)(*args, **kwargs)
    errors = {}
    for name, some in groupby(sorted(found, key=lambda one: one.written), lambda one: one.written):
        left = acts[name].astype(jnp.float32)
        for one in some:
            x = acts[one.read]
            if one.layer is None:
                here = jnp.moveaxis(one.dictionary(jnp.moveaxis(x, 0, -2)), -2, 0)
                left = left - here.astype(left.dtype)
            else:
                place = (known[name].layers or ()).index(one.layer)
                out = one.dictionary(x[place]).reshape(left.shape[1:])
                left = left.at[place].add(-out.astype(left.dtype))
        errors[name] = left
    return Held(errors, {name: acts[name] for name in frozen})
