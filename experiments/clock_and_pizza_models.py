"""The models of `clock_and_pizza.py`: files of github.com/fjzzq2002/pizza, checked, and a plain function of them."""

from collections.abc import Mapping
from functools import partial
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax.io import torch_files

SHAPES = {  # of one layer, and of no more and no other arrays; "attn.mask", which the authors' code does not use, aside
    "embed.W_E": ("d_model", "p"),
    "pos_embed.W_pos": ("positions", "d_model"),
    **{f"attn.W_{name}": ("n_heads", "d_head", "d_model") for name in "QKV"},
    "attn.W_O": ("d_model", "heads"),
    "mlp.W_in": ("d_mlp", "d_model"),
    "mlp.b_in": ("d_mlp",),
    "mlp.W_out": ("d_model", "d_mlp"),
    "mlp.b_out": ("d_model",),
    "unembed.W_U": ("d_model", "p"),
}


def load(folder: Path, name: str) -> dict[str, jax.Array]:
    """A model's arrays, and the `attn_coeff` of its settings. Raises ValueError where `forward` would not be it."""
    settings = json.loads((folder / f"config_{name}.json").read_text())
    arrays = torch_files.read(folder / f"model_{name}.pt")
    check(name, settings, arrays)
    arrays["attn_coeff"] = np.float32(settings["attn_coeff"])
    return {key.removeprefix("blocks.0."): jnp.asarray(array) for key, array in arrays.items()}


def check(name: str, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError where a model is not one layer of attention and ReLU neurons that adds modulo p."""
    p = settings.get("C")
    wanted = {"n_layers": 1, "act_fn": "ReLU", "diff_vocab": 0, "eqn_sign": 0, "funcs": f"lambda x: (x[0]+x[1])%{p}"}
    for key, value in wanted.items():
        if settings.get(key) != value:
            found = settings.get(key)
            raise ValueError(f"config_{name}.json: {key} is {found!r}; the model that is run here has {value!r}")
    if not isinstance(settings.get("attn_coeff"), (int, float)):
        raise ValueError(f"config_{name}.json: attn_coeff is {settings.get('attn_coeff')!r}, not a number")
    if layers := {key.split(".")[1] for key in arrays if key.startswith("blocks.")} - {"0"}:
        raise ValueError(f"model_{name}.pt: has {1 + len(layers)} layers; the model that is run here has one")
    shapes = {key.removeprefix("blocks.0."): tuple(array.shape) for key, array in arrays.items()}
    shapes.pop("attn.mask", None)
    if odd := sorted(shapes.keys() ^ SHAPES.keys()):
        verb = "has" if odd[0] in shapes else "lacks"
        raise ValueError(f"model_{name}.pt: {verb} {odd[0]}; the model that is run here has {', '.join(SHAPES)}")
    sizes: dict[str, int] = {"p": p, "positions": 2}
    for key, axes in SHAPES.items():
        expected = tuple(sizes.get(axis, size) for axis, size in zip(axes, shapes[key], strict=False))
        if len(axes) != len(shapes[key]) or shapes[key] != expected:
            needed = [sizes.get(axis, axis) for axis in axes]
            raise ValueError(f"model_{name}.pt: {key} has shape {list(shapes[key])}; to add modulo {p} takes {needed}")
        sizes |= dict(zip(axes, shapes[key], strict=True))
        if key == "attn.W_V":
            sizes["heads"] = sizes["n_heads"] * sizes["d_head"]


def forward(w: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
    """Logits [batch p] at the second of tokens [batch 2]. Nothing is masked, as in the authors' code."""
    site = partial(ij.site, layer=0, axes=("position", "d_model"))
    x = ij.site(w["embed.W_E"].T[tokens], "embed", axes=("position", "d_model"))
    x = site(x + w["pos_embed.W_pos"], "blocks.resid_pre")
    q, k, v = (jnp.einsum("bpm,hdm->bphd", x, w[f"attn.W_{name}"]) for name in "QKV")
    pattern = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5)
    pattern = w["attn_coeff"] * pattern + (1 - w["attn_coeff"])  # rows of ones where it is held constant
    pattern = site(pattern, "blocks.attn.pattern", axes=("head", "query", "key"))
    z = jnp.einsum("bhqk,bkhd->bqhd", pattern, v).reshape(*x.shape[:-1], -1)
    x = site(x + site(z @ w["attn.W_O"].T, "blocks.attn_out"), "blocks.resid_mid")
    neurons = site(jax.nn.relu(x @ w["mlp.W_in"].T + w["mlp.b_in"]), "blocks.mlp.post", axes=("position", "d_mlp"))
    x = site(x + site(neurons @ w["mlp.W_out"].T + w["mlp.b_out"], "blocks.mlp_out"), "blocks.resid_post")
    return x[:, -1] @ w["unembed.W_U"]


@jax.jit
def of_all_pairs(w: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Logits [p p p] and neurons [p p d_mlp] at the answer to every pair."""
    p, neurons = w["embed.W_E"].shape[1], "blocks.0.mlp.post"
    pairs = jnp.stack(jnp.divmod(jnp.arange(p * p), p), 1)
    logits, acts = ij.capture(forward, {neurons: lambda x: x[:, -1]})(w, pairs)
    return logits.reshape(p, p, p), acts[neurons].reshape(p, p, -1)
