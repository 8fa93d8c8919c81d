"""`from_state_dict`: a model from named arrays that another tool holds or has saved."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh
import numpy as np

from interp_jax.models import nanogpt, transformer_lens
from interp_jax.models.checkpoint import Checkpoint, bare, check_depth, sources
from interp_jax.models.config import Config
from interp_jax.models.families import FAMILIES, family_of
from interp_jax.models.tensors import Tensor
from interp_jax.models.transformer import Transformer

_WHERE = "from_state_dict"


def from_state_dict(
    state: Mapping[str, Any],
    config: Config | Mapping[str, Any],
    *,
    dtype: Any = None,
    mesh: Mesh | None = None,
    scan_layers: bool | None = None,
) -> Transformer:
    """A model from a state dict, recognised by its names: transformers', nanoGPT's or TransformerLens's.

    `interp_jax.io.torch_files.read` reads such dicts from files of torch, without torch and without its pickles:

        state = torch_files.read("pytorch_model.bin")                           # transformers
        model = models.from_state_dict(state, json.load(open("config.json")))
        saved = torch_files.read("model.pt")                                    # TransformerLens
        model = models.from_state_dict(saved["model"], saved["config"])

    Args:
      state: name -> array; numpy's, or torch's on the CPU.
      config: what the tool calls it, as a dict: a config of transformers with its `architectures`; nanoGPT's
        `model_args`; TransformerLens's `cfg` (`cfg.to_dict()`). Or a `Config`, whose family names the format of
        transformers' dicts.
      dtype, mesh, scan_layers: as in `load`.

    Raises:
      ValueError: names of no known tool, an option that the models do not have, weights that do not fit the config.

    Example:
      >>> import numpy as np
      >>> from interp_jax import models
      >>> shapes = {"embed.W_E": (9, 4), "pos_embed.W_pos": (5, 4), "unembed.W_U": (4, 9), "blocks.0.attn.b_O": (4,)}
      >>> shapes |= {f"blocks.0.attn.W_{x}": (2, 4, 3) for x in "QKV"} | {"blocks.0.attn.W_O": (2, 3, 4)}
      >>> shapes |= {f"blocks.0.attn.b_{x}": (2, 3) for x in "QKV"}
      >>> state = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
      >>> sizes = dict(n_layers=1, n_heads=2, d_model=4, d_head=3, d_vocab=9, n_ctx=5)
      >>> cfg = sizes | {"attn_only": True, "normalization_type": None}
      >>> models.from_state_dict(state, cfg)(np.array([1, 2, 3])).shape
      (3, 9)
    """
    arrays = {name: _array(name, value) for name, value in state.items()}
    if not isinstance(config, (Config, Mapping)):
        raise ValueError(f"{_WHERE}: the config must be a dict or a Config, not a {type(config).__name__}")
    return _read(arrays, config).model(dtype, mesh, scan_layers=scan_layers)


def _read(state: Mapping[str, np.ndarray], config: Config | Mapping[str, Any]) -> Checkpoint:
    if transformer_lens.is_one(state):
        return transformer_lens.read(_WHERE, state, config)
    if _is_nanogpt(state):
        return nanogpt.read(_WHERE, state, config)
    if isinstance(config, Config):
        name, family = config.family, FAMILIES.get(config.family)
        if family is None:
            raise ValueError(f"{_WHERE}: there is no family {name!r}; there are {', '.join(FAMILIES)}")
    else:
        name, family, headless = family_of(config, _WHERE)
    tensors = {
        bare(family, key): Tensor(f"{_WHERE}: {key}", array.shape, array.__getitem__) for key, array in state.items()
    }
    n_layers = config.n_layers if isinstance(config, Config) else family.n_layers(name, config, _WHERE)
    check_depth(_WHERE, family, n_layers, tensors)
    if not isinstance(config, Config):
        config = family.config(name, config, _WHERE, headless=headless)
    return Checkpoint(config, sources(_WHERE, family, config, tensors))


def _is_nanogpt(state: Mapping[str, np.ndarray]) -> bool:
    """GPT-2's names over torch's linear layers, [out in] where GPT-2's own are [in out]."""
    fused = next((array for name, array in state.items() if name.endswith("h.0.attn.c_attn.weight")), None)
    return fused is not None and fused.ndim == 2 and fused.shape[0] == 3 * fused.shape[1]


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{_WHERE}: {name} is no array on this machine ({error}); call .detach().cpu().float()"
        ) from None
    if array.dtype.kind not in "biufV":  # V: bfloat16
        raise ValueError(f"{_WHERE}: {name} is no array of numbers but {value!r:.60}")
    return array
