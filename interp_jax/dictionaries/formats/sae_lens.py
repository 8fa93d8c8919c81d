"""Our dictionaries from SAELens's folders and back: what its options do is folded into the arrays.

    apply_b_dec_to_input            b_enc -+ b_dec W_enc, where our form differs from the folder's
    rescale_acts_by_decoder_norm    W_enc |W_dec,i|, b_enc |W_dec,i|, W_dec,i / |W_dec,i|
    expected_average_only_in        nothing, as there: inputs are scaled by whoever makes them (see `fold_scale`), and
                                    the dictionary knows the norm that they had, sqrt(d_in)
    layer_norm                      `normalization`, of every kind but transcoders

BatchTopK and Matryoshka are saved as jumprelu, their inference form. https://decoderesearch.github.io/SAELens
Caveat: constant_norm_rescale and covariance_whitening are refused. Thresholds are float32 here, whatever the file's
dtype, which holds them exactly.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
import re
from typing import Any

from jax import Array
import jax.numpy as jnp

from interp_jax import io
from interp_jax.dictionaries.kinds.arrays import row_norms, unit_rows
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.gated import Gated
from interp_jax.dictionaries.kinds.jumprelu import BANDWIDTH, JumpReLU
from interp_jax.dictionaries.kinds.relu import ReLU
from interp_jax.dictionaries.kinds.reviving import published_k_aux
from interp_jax.dictionaries.kinds.topk import TopK
from interp_jax.dictionaries.kinds.transcoder import SkipTranscoder, Transcoder

VERSION = "6.0.0"  # of the config's form
AFFINE = ("W_enc", "b_enc", "W_dec", "b_dec")
ARRAYS = {
    "standard": AFFINE,
    "topk": AFFINE,
    "jumprelu": (*AFFINE, "threshold"),
    "gated": ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"),
    "transcoder": AFFINE,
    "skip_transcoder": (*AFFINE, "W_skip"),
}
NORMALIZATIONS = ("none", "expected_average_only_in", "layer_norm")
RENAMED = {"hook_name": "site", "hook_name_out": "site_out", "model_name": "model"}


def load(path: str | Path) -> Dictionary:
    """The dictionary of a SAELens folder.

    Raises:
      ValueError: a file is torn, or the architecture, an option or an array is not one that is known; it is named.
    """
    arrays, config = io.sae_lens.read(path)
    _check(path, arrays, config)
    if "threshold" not in arrays and "log_threshold" in arrays:
        arrays["threshold"] = jnp.exp(arrays.pop("log_threshold").astype(jnp.float32))
    transcoder = "transcoder" in config["architecture"]
    centered = config.get("apply_b_dec_to_input", not transcoder)
    dictionary = LOADERS[config["architecture"]](arrays, config, centered)
    about, normalization = load_metadata(path), config.get("normalize_activations", "none")
    sites = about.get("site") or None
    if dictionary.reads_pair:
        sites = (sites, about["site_out"]) if sites and about.get("site_out") else None
    return replace(
        dictionary,
        sites=sites,
        normalization="layer_norm" if normalization == "layer_norm" else "none",
        mean_norm=jnp.float32(config["d_in"] ** 0.5) if normalization == "expected_average_only_in" else None,
    )


def load_metadata(path: str | Path) -> dict[str, Any]:
    """A folder's metadata; hook names become addresses under `site` and `site_out`, the model's name `model`."""
    about = io.sae_lens.read(path)[1]["metadata"]
    named = {RENAMED[key] if key in RENAMED else key: value for key, value in about.items()}
    return {key: address(value) if key.startswith("site") and value else value for key, value in named.items()}


def save(path: str | Path, dictionary: Dictionary, metadata: Mapping[str, Any]) -> None:
    """Writes a SAELens folder.

    Args:
      path: the folder.
      dictionary: of an architecture that SAELens has too, or whose inference form it has.
      metadata: `site` and `site_out` become hook names, `model` the model's name.

    Raises:
      ValueError: SAELens has no form of the dictionary.
      FileExistsError: `path` is there and is something else.
    """
    form = dictionary.to_sae_lens()
    if form is None:
        raise ValueError(f"save: SAELens has no form of a {type(dictionary).__name__} dictionary; use format='orbax'")
    architecture, options, arrays = form
    site = dictionary.sites if isinstance(dictionary.sites, tuple) else (dictionary.sites,)
    known = {name: at for name, at in zip(("site", "site_out"), site, strict=False) if at} | dict(metadata)
    back = {ours: theirs for theirs, ours in RENAMED.items()}
    about = {back.get(key, key): hook_name(v) if key.startswith("site") else v for key, v in known.items()}
    config = {
        "architecture": architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "dtype": str(dictionary.W_dec.dtype),
        "device": "cpu",
        "normalize_activations": dictionary.normalization,
        "reshape_activations": "none",
        **options,
        "metadata": {"sae_lens_version": VERSION, "sae_lens_training_version": None, **about},
    }
    io.sae_lens.write(path, arrays, config)


def address(hook_name: str) -> str:
    """Our address of a hook name.

    Example:
      >>> address("blocks.5.attn.hook_z")
      'blocks.5.attn.z'
    """
    return re.sub(r"(^|\.)hook_", r"\1", hook_name)


def hook_name(address: str) -> str:
    """The hook name of one of our addresses.

    Example:
      >>> hook_name("blocks.5.resid_post"), hook_name("blocks.5.attn.hook_z")
      ('blocks.5.hook_resid_post', 'blocks.5.attn.hook_z')
    """
    *scope, name = address.split(".")
    return ".".join([*scope, name if name.startswith("hook_") else f"hook_{name}"])


def _check(path: str | Path, arrays: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    architecture = config["architecture"]
    if architecture not in ARRAYS:
        raise ValueError(f"{path}: architecture {architecture!r} is not supported; supported: {', '.join(ARRAYS)}")
    normalization = config.get("normalize_activations", "none")
    if normalization not in NORMALIZATIONS:
        known = ", ".join(NORMALIZATIONS)
        raise ValueError(f"{path}: normalize_activations {normalization!r} is not supported; supported: {known}")
    if normalization == "layer_norm" and "transcoder" in architecture:
        raise ValueError(f"{path}: normalize_activations 'layer_norm' of a {architecture} is not supported")
    wanted = set(ARRAYS[architecture])
    found = {"threshold" if name == "log_threshold" else name for name in arrays}
    if wanted != found:
        missing, extra = sorted(wanted - found), sorted(found - wanted)
        raise ValueError(f"{path}: arrays of another {architecture}: it lacks {missing} and has {extra} besides")
    d_sae, d_in = config["d_sae"], config["d_in"]
    if arrays["W_enc"].shape != (d_in, d_sae) or arrays["W_dec"].shape[0] != d_sae:
        raise ValueError(f"{path}: W_enc {arrays['W_enc'].shape} does not fit d_in={d_in} and d_sae={d_sae}")


def _standard(arrays: dict[str, Any], config: Mapping[str, Any], centered: bool) -> ReLU:
    return ReLU(**arrays, apply_b_dec_to_input=centered, unit_rows=False)


def _topk(arrays: dict[str, Any], config: Mapping[str, Any], centered: bool) -> TopK:
    d_in, d_sae, k = config["d_in"], config["d_sae"], config.get("k")
    if not isinstance(k, int) or not 1 <= k <= d_sae:
        raise ValueError(f"sae_lens: k={k!r} of a topk config must be from 1 to d_sae={d_sae}")
    W_enc, b_enc, W_dec, b_dec = (arrays[name] for name in AFFINE)
    b_enc = b_enc if centered else b_enc + b_dec @ W_enc
    if config.get("rescale_acts_by_decoder_norm", False):
        norms = row_norms(W_dec)  # a feature that writes nothing is never active
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, unit_rows(W_dec)
    return TopK(W_enc, b_enc, W_dec, b_dec, k=k, k_aux=published_k_aux(d_in, d_sae))


def _jumprelu(arrays: dict[str, Any], config: Mapping[str, Any], centered: bool) -> JumpReLU:
    W_enc, b_enc, W_dec, b_dec = (arrays[name] for name in AFFINE)
    b_enc = b_enc - b_dec @ W_enc if centered else b_enc
    threshold = jnp.maximum(arrays["threshold"].astype(jnp.float32), 0)  # a negative one acts as 0: a ReLU comes before
    return JumpReLU(W_enc, b_enc, W_dec, b_dec, threshold, jnp.float32(BANDWIDTH))


def _gated(arrays: dict[str, Any], config: Mapping[str, Any], centered: bool) -> Gated:
    shift = jnp.zeros_like(arrays["b_gate"]) if centered else arrays["b_dec"] @ arrays["W_enc"]
    shifted = {
        "b_gate": arrays["b_gate"] + shift,
        "b_mag": arrays["b_mag"] + shift * jnp.exp(arrays["r_mag"]),
    }
    return Gated(**arrays | shifted)


def _transcoder(arrays: dict[str, Any], config: Mapping[str, Any], centered: bool) -> Transcoder:
    _refuse_centered(centered)
    return Transcoder(**arrays)


def _skip_transcoder(arrays: dict[str, Any], config: Mapping[str, Any], centered: bool) -> SkipTranscoder:
    _refuse_centered(centered)
    return SkipTranscoder(**arrays)


def _refuse_centered(centered: bool) -> None:
    if centered:
        raise ValueError("sae_lens: apply_b_dec_to_input is not supported for transcoders: b_dec is of the output")


LOADERS = {
    "standard": _standard,
    "topk": _topk,
    "jumprelu": _jumprelu,
    "gated": _gated,
    "transcoder": _transcoder,
    "skip_transcoder": _skip_transcoder,
}
