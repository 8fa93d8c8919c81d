"""How configs say where a token may look and how its position is told: rotary embeddings and windows."""

from collections.abc import Callable
from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.options import Options

KINDS = ("full_attention", "sliding_attention")
_LLAMA3 = {
    "low_freq_factor": "rope_low_freq_factor",
    "high_freq_factor": "rope_high_freq_factor",
    "original_max_position_embeddings": "rope_original_n_ctx",
}


def read_rope(
    option: Options,
    fields: dict[str, Any],
    *,
    theta: tuple[str, float] = ("rope_theta", 10000.0),
    share: tuple[str, float] | None = None,
) -> dict[str, Any]:
    """The fields of rotary positions. `theta`, and `share` of each head in families that may rotate a part of it: the
    options' names, and their values where absent."""
    rope = dict(option.inside("rope_scaling").hf or option.inside("rope_parameters").hf)
    option("rope_parameters", None)
    base, d_head = option.positive(*theta), fields.get("d_head") or fields["d_model"] // fields["n_heads"]
    n_rotary = d_head
    if share is None:
        option.only("partial_rotary_factor", 1.0)
    else:
        part, inside = option.positive(*share), Options(f"{option}: rope_parameters", rope)
        n_rotary = int(d_head * inside.positive("partial_rotary_factor", part))
        rope.pop("partial_rotary_factor", None)
    return {
        "rope_theta": take_theta(option, rope, base),
        "rotary_dim": 0 if n_rotary == d_head else n_rotary,
        **read_scaling(option, rope, fields["n_ctx"]),
    }


def take_theta(option: Options, rope: dict[str, Any], base: float) -> float:
    """The base of the angles that `rope` may hold; it is taken out."""
    inside = Options(f"{option}: rope_parameters", {"rope_theta": rope.pop("rope_theta", None)})
    return inside.positive("rope_theta", base)


def read_scaling(option: Options, rope: dict[str, Any], n_ctx: int) -> dict[str, Any]:
    """The fields that say how the rotary angles are stretched, from what `rope_scaling` holds."""
    rope = dict(rope)
    kinds = [rope.pop(key, None) for key in ("rope_type", "type")]
    kind = kinds[0] or kinds[1] or "default"
    keys = {"factor": "rope_factor"} if kind in ("linear", "llama3") else {}
    if kind == "llama3":
        rope.setdefault("original_max_position_embeddings", n_ctx)
        keys |= _LLAMA3
    inside = Options(f"{option}: rope_scaling of type {kind!r}", rope)
    found = {"rope_scaling": kind} if keys else {}
    for key, ours in keys.items():
        found[ours] = inside.size(key) if ours == "rope_original_n_ctx" else inside.positive(key)
    rest = {key: value for key, value in rope.items() if key not in keys}
    if kind not in ("default", "linear", "llama3") or any(value not in (None, 1, 1.0) for value in rest.values()):
        raise option.unsupported(f"rope_scaling of type {kind!r} {rest}")
    return found


def write_rope(config: Config, *, theta: str = "rope_theta", share: str = "partial_rotary_factor") -> dict[str, Any]:
    """The options that `read_rope` reads."""
    options: dict[str, Any] = {theta: config.rope_theta, "rope_scaling": write_scaling(config)}
    if config.n_rotary != config.d_head:
        part = config.n_rotary / config.d_head
        exact = int(config.d_head * part) == config.n_rotary  # or lost to rounding
        options[share] = part if exact else (config.n_rotary + 0.5) / config.d_head
    return options


def write_scaling(config: Config) -> dict[str, Any] | None:
    """What `rope_scaling` holds."""
    if config.rope_scaling == "none":
        return None
    scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        scaling |= {key: getattr(config, ours) for key, ours in _LLAMA3.items()}
    return scaling


def read_layers(option: Options, local: Callable[[int], bool], n_layers: int, window: int | None) -> dict[str, Any]:
    """The fields of local layers. `local`: layer -> whether it is one where the config does not list them."""
    kinds = option("layer_types", None)
    if kinds is None:
        layers = tuple(filter(local, range(n_layers)))
    else:
        if not isinstance(kinds, list) or len(kinds) != n_layers or any(kind not in KINDS for kind in kinds):
            raise option.unsupported(f"layer_types={kinds!r:.80}", (f"a list of {n_layers} of {' and '.join(KINDS)}",))
        layers = tuple(layer for layer, kind in enumerate(kinds) if kind == "sliding_attention")
    return {"window": window, "local_layers": layers} if window and layers else {}


def windowed(fields: dict[str, Any], window: int | None) -> dict[str, Any]:
    """The window of a model whose every layer is local, or none is."""
    return {"window": window, "local_layers": tuple(range(fields["n_layers"]))} if window else {}


def write_layers(config: Config) -> dict[str, Any]:
    """The options that `read_layers` reads."""
    local = [i in config.local_layers for i in range(config.n_layers)]
    return {
        "sliding_window": config.window or None,
        "layer_types": [KINDS[is_local] for is_local in local],
    }
