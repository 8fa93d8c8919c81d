"""What a family is made of: the options of its config.json and the names of its weights, as tables.

A family reads every option of the config that it knows. An option that would change the forward pass and that the
models do not have is refused by name, and so is one that nobody here has heard of.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from interp_jax.models.config import Config

REQUIRED: Any = object()  # an option without which a config cannot be read


@dataclass(frozen=True)
class Rename:
    """One tensor of a checkpoint, `{}` the layer. Several of ours stand side by side on its output axis.

    Hugging Face's linear layers hold `[out in]` and are transposed, GPT-2's hold `[in out]`.

    Attributes:
      interleaved: ours take turns, head by head.
      vector: it has one axis: a bias, or what a norm multiplies by.
    """

    hf: str
    ours: tuple[str, ...]
    transpose: bool = False
    interleaved: bool = False
    vector: bool = False


@dataclass(frozen=True)
class Family:
    """A checkpoint format.

    Attributes:
      architecture: the class name that transformers writes in config.json.
      fields: option -> (our field, what it is where the option is absent or null).
      constant: the fields that are the same in every model of the family.
      fixed: options of which only some values are supported, the first of them where it is absent.
      harmless: options of this family that do not touch the forward pass of a trained model.
      read: (options, fields so far) -> the fields that take more than a look-up.
      write: `Config` -> the options that `read` reads.
      prefix: stands before every name but the head's, in all but the oldest checkpoints.
      names: the renaming table.
      head: the part of the table whose names have no prefix; a checkpoint of tied weights may lack or repeat it.
      ignored: ends of the names of tensors that are constants or not part of the model.
      spellings: ends of names in some checkpoints -> those of the table.
    """

    architecture: str
    fields: Mapping[str, tuple[str, Any]]
    prefix: str
    names: tuple[Rename, ...]
    head: tuple[Rename, ...] = (Rename("lm_head.weight", ("w_u",), transpose=True),)
    constant: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    harmless: frozenset[str] = frozenset()
    read: Callable[["Options", dict[str, Any]], dict[str, Any]] = lambda option, fields: {}
    write: Callable[[Config], dict[str, Any]] = lambda config: {}
    ignored: tuple[str, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=dict)

    def config(self, name: str, hf: dict[str, Any]) -> Config:
        """HF config dict -> `Config`."""
        option = Options(name, hf, self.harmless)
        fields: dict[str, Any] = {
            ours: option.act(key, absent) if ours == "act" else option(key, absent)
            for key, (ours, absent) in self.fields.items()
        }
        for key, values in self.fixed.items():
            option.only(key, *values)
        fields |= self.constant
        fields |= self.read(option, fields)
        option.done()
        return Config(family=name, **fields)

    def hf_config(self, config: Config) -> dict[str, Any]:
        """`Config` -> HF config dict."""
        options = {key: getattr(config, ours) for key, (ours, _) in self.fields.items()}
        return {"model_type": config.family, "architectures": [self.architecture], **options, **self.write(config)}


# Options of any HF config that do not touch the forward pass of a trained model.
_HARMLESS = frozenset(
    "_name_or_path _attn_implementation_autoset architectures attention_dropout auto_map bos_token_id "
    "cache_implementation decoder_start_token_id dtype eos_token_id finetuning_task gradient_checkpointing id2label "
    "initializer_range label2id model_type n_ctx output_attentions output_hidden_states pad_token_id problem_type "
    "return_dict task_specific_params torch_dtype torchscript transformers_version unk_token_id use_cache".split()
)
_NOTHING = (None, False, 0, 0.0, "", [], {})
_ACTS = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class Options:
    """Reads a config dict and remembers what was read, so that the rest can be refused."""

    def __init__(self, family: str, hf: dict[str, Any], harmless: frozenset[str]):
        self.hf, self.family, self.left = hf, family, set(hf) - _HARMLESS - harmless

    def __call__(self, key: str, absent: Any = REQUIRED) -> Any:
        """The value of an option, or what it is where it is absent or null."""
        self.left.discard(key)
        value = self.hf.get(key)
        if value is not None:
            return value
        if absent is REQUIRED:
            raise ValueError(f"{self}: {key!r} is missing")
        return absent

    def nullable(self, key: str, absent: Any) -> Any:
        """The value of an option in which null means something else than absence."""
        self.left.discard(key)
        return self.hf.get(key, absent)

    def only(self, key: str, *supported: Any) -> None:
        """An option of which the models have only some values, the first where it is absent."""
        value = self(key, supported[0])
        if value not in supported:
            raise self.unsupported(f"{key}={value!r}", supported)

    def act(self, key: str, absent: str) -> str:
        """An activation function in our words."""
        self.only(key, absent, *_ACTS)
        return _ACTS[self(key, absent)]

    def done(self) -> None:
        """Refuses what was not read."""
        for key in sorted(self.left):
            if self.hf[key] not in _NOTHING:
                raise ValueError(
                    f"{self}: option {key}={self.hf[key]!r} is not supported; if it does not change the forward pass, "
                    "remove it from config.json"
                )

    def unsupported(self, what: str, supported: Any = ()) -> ValueError:
        only = f", only {' or '.join(repr(value) for value in supported)}" if supported else ""
        return ValueError(f"{self}: {what} is not supported{only}")

    def __str__(self) -> str:
        return f"config.json of family {self.family}"


def linear(hf: str, *ours: str, transpose: bool = True, interleaved: bool = False) -> tuple[Rename, Rename]:
    """The weight and the bias of a linear layer; `ours` without the leading `w_`."""
    parts = [name.rpartition(".") for name in ours]
    w, b = (tuple(f"{at}{dot}{kind}_{name}" for at, dot, name in parts) for kind in "wb")
    return Rename(f"{hf}.weight", w, transpose, interleaved), Rename(
        f"{hf}.bias", b, interleaved=interleaved, vector=True
    )


def norm(hf: str, ours: str) -> tuple[Rename, Rename]:
    """The weight and the bias of a norm."""
    return Rename(f"{hf}.weight", (f"{ours}.w",), vector=True), Rename(f"{hf}.bias", (f"{ours}.b",), vector=True)
