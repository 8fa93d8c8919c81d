"""nanoGPT's checkpoints: a GPT-2 in torch's linear layers, with or without biases. https://github.com/karpathy/nanoGPT

Caveat: the activation is not in the file. It is GELU, as in nanoGPT since 2023; for older ones give a `Config` with
`act="gelu_new"` to `models.from_state_dict`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from interp_jax.models.checkpoint import Checkpoint, abstract_parameters, bare, check_depth, sources, table
from interp_jax.models.config import Config
from interp_jax.models.families.gpt import GPT2_LINEAR
from interp_jax.models.families.options import Options
from interp_jax.models.tensors import Tensor

STATE, ARGUMENTS = "model", "model_args"
_UNREAD = frozenset({"dropout", "bias", "vocab_size", "block_size"})  # the weights say the last three


def checkpoint(where: str, saved: Any) -> Checkpoint:
    """What a `ckpt.pt` holds, as `torch_files` reads it.

    Raises:
      ValueError: it is another file of torch, or its weights and arguments do not fit.
    """
    if not isinstance(saved, dict) or not all(isinstance(saved.get(key), dict) for key in (STATE, ARGUMENTS)):
        raise ValueError(
            f"{where}: is no checkpoint of nanoGPT: it has no 'model' and 'model_args'; for other state dicts call "
            "models.from_state_dict(interp_jax.io.torch_files.read(path), config)"
        )
    return read(where, saved[STATE], saved[ARGUMENTS])


def read(where: str, state: Mapping[str, np.ndarray], arguments: Mapping[str, Any] | Config) -> Checkpoint:
    """A state dict of nanoGPT; `arguments`: its `model_args`, or the whole config."""
    family = GPT2_LINEAR
    tensors = {
        bare(family, name.removeprefix("_orig_mod.")): Tensor(f"{where}: {name}", value.shape, value.__getitem__)
        for name, value in state.items()
    }
    config = arguments if isinstance(arguments, Config) else _config(where, state, tensors, arguments)
    check_depth(where, family, config.n_layers, tensors)
    return Checkpoint(config, sources(where, family, config, tensors | _zeros(where, config, tensors)))


def _config(where: str, state: Any, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> Config:
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors or len(tensors[name].shape) != 2:
            raise ValueError(f"{where}: has no matrix {family_name(name)}; is it a state dict of a GPT?")
    option = Options(f"{where}: model_args", arguments, _UNREAD)
    hf = {
        "n_layer": option.size("n_layer"),
        "n_head": option.size("n_head"),
        "n_embd": option.size("n_embd"),
        "vocab_size": tensors["wte.weight"].shape[0],
        "n_positions": tensors["wpe.weight"].shape[0],
        "activation_function": "gelu",
        "tie_word_embeddings": _is_tied(state),
    }
    option.done()
    biases = {"attn_bias": "h.0.attn.c_attn.bias" in tensors, "mlp_bias": "h.0.mlp.c_fc.bias" in tensors}
    return replace(GPT2_LINEAR.config("gpt2", hf, where), **biases)


def family_name(name: str) -> str:
    """A name of the table as the file has it."""
    return GPT2_LINEAR.prefix + name


def _is_tied(state: Mapping[str, np.ndarray]) -> bool:
    ends = {name.removeprefix("_orig_mod."): value for name, value in state.items()}
    head, words = ends.get("lm_head.weight"), ends[family_name("wte.weight")]
    return head is None or np.array_equal(head, words)


def _zeros(where: str, config: Config, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The biases of norms, which a model without biases lacks."""
    ours = abstract_parameters(config)
    missing = {
        name: ours[parts[0]].shape
        for name, _, parts in table(GPT2_LINEAR, config, ours)
        if parts[0].endswith(".b") and name not in tensors
    }
    return {
        name: Tensor(f"{where}: {name}", shape, np.zeros(shape, np.float32).__getitem__)
        for name, shape in missing.items()
    }
