"""How configs say where a token may look and how its position is told: rotary embeddings and windows."""

from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.formats import Options

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
    rope = {**(option("rope_scaling", None) or {}), **(option("rope_parameters", None) or {})}
    base, d_head = option(*theta), fields.get("d_head") or fields["d_model"] // fields["n_heads"]
    n_rotary = d_head
    if share is None:
        option.only("partial_rotary_factor", 1.0)
    else:
        part = option(*share)
        n_rotary = int(d_head * (rope.pop("partial_rotary_factor", None) or part))
    return {
        "rope_theta": rope.pop("rope_theta", None) or base,
        "rotary_dim": 0 if n_rotary == d_head else n_rotary,
        **read_scaling(option, rope, fields["n_ctx"]),
    }


def read_scaling(option: Options, rope: dict[str, Any], n_ctx: int) -> dict[str, Any]:
    """The fields that say how the rotary angles are stretched, from what `rope_scaling` holds."""
    rope = dict(rope)
    kinds = [rope.pop(key, None) for key in ("rope_type", "type")]
    kind = kinds[0] or kinds[1] or "default"
    keys = {"factor": "rope_factor"} if kind in ("linear", "llama3") else {}
    if kind == "llama3":
        rope.setdefault("original_max_position_embeddings", n_ctx)
        keys |= _LLAMA3
    for key in keys:
        if key not in rope:
            raise ValueError(f"{option}: rope_scaling of type {kind!r} has no {key!r}")
    found = {"rope_scaling": kind, **{ours: rope.pop(key) for key, ours in keys.items()}} if keys else {}
    if kind not in ("default", "linear", "llama3") or any(value not in (None, 1, 1.0) for value in rope.values()):
        raise option.unsupported(f"rope_scaling of type {kind!r} {rope}")
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


def read_layers(option: Options, local: list[bool], window: int | None) -> dict[str, Any]:
    """The fields of local layers. `local`: which they are where the config does not list them."""
    kinds = option("layer_types", None)
    if kinds is not None:
        for kind in kinds:
            if kind not in ("full_attention", "sliding_attention"):
                raise option.unsupported(f"layer_types with {kind!r}", ("full_attention", "sliding_attention"))
        local = [kind == "sliding_attention" for kind in kinds]
    if not window:
        return {}
    return {"window": window, "local_layers": tuple(i for i, is_local in enumerate(local) if is_local)}


def write_layers(config: Config) -> dict[str, Any]:
    """The options that `read_layers` reads."""
    local = [i in config.local_layers for i in range(config.n_layers)]
    return {
        "sliding_window": config.window or None,
        "layer_types": ["sliding_attention" if is_local else "full_attention" for is_local in local],
    }
