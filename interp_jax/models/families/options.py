"""The options of a config.json: read one by one, their values checked, and what was left over said aloud.

What decides is what transformers' model of the family reads. An option that it reads and that our models lack is
refused by name and value. One that it does not read is ignored: silently where it is listed or begins with an
underscore, as transformers' own notes do, and else with a warning, since it may be of a newer transformers.
"""

from collections.abc import Mapping
import math
from typing import Any
import warnings

from interp_jax.models.config import check_value

REQUIRED: Any = object()  # an option without which a config cannot be read

# Options of any config that do not touch the forward pass of a trained model: notes, training, outputs, generation.
_UNREAD = frozenset(
    "architectures auto_map dtype finetuning_task gradient_checkpointing id2label initializer_range label2id "
    "max_sequence_length model_max_length model_type name_or_path problem_type pruned_heads task_specific_params "
    "tokenizer_class torch_dtype torchscript transformers_version transformers.js_config use_bfloat16 tf_legacy_loss "
    "unsloth_fixed unsloth_version attention_dropout attn_implementation experts_implementation output_attentions "
    "output_hidden_states output_past output_scores return_dict return_dict_in_generate use_cache cache_implementation "
    "bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id prefix "
    "assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens diversity_penalty "
    "do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff "
    "exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length min_length "
    "no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams "
    "num_return_sequences remove_invalid_values repetition_penalty suppress_tokens target_lookbehind temperature top_k "
    "top_p typical_p cross_attention_hidden_size tie_encoder_decoder chunk_size_feed_forward num_labels".split()
)
# Options of any config that transformers reads and that no family has.
_UNSUPPORTED = ("is_encoder_decoder", "quantization_config", "per_layer_config")
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
    """Reads a config dict and remembers what was read.

    Args:
      where: the file, for errors.
      hf: the config dict.
      unread: options that are known not to matter, beside those that matter nowhere.
    """

    def __init__(self, where: str, hf: Mapping[str, Any], unread: frozenset[str] = frozenset()):
        self.where, self.hf = where, hf
        self.left = {key for key in hf if not key.startswith("_")} - _UNREAD - unread

    def __call__(self, key: str, absent: Any = REQUIRED, kind: Any = None) -> Any:
        """The value of an option, or what it is where it is absent or null. `kind`: its type, as of a field."""
        self.left.discard(key)
        value = self.hf.get(key)
        if value is None:
            if absent is REQUIRED:
                raise ValueError(f"{self}: {key!r} is missing")
            return absent
        if kind is not None:
            check_value(f"{self}: {key!r}", value, kind)
        return value

    def nullable(self, key: str, absent: Any, kind: Any) -> Any:
        """The value of an option in which null means something else than absence."""
        return self(key, None, kind) if key in self.hf else absent

    def size(self, key: str, absent: Any = REQUIRED) -> Any:
        """A whole number of at least one; `absent` may be less, which is ours to say."""
        value = self(key, None, int)
        if value is None:
            return self(key, absent)
        if value < 1:
            raise ValueError(f"{self}: {key!r} must be at least 1, not {value!r}")
        return value

    def positive(self, key: str, absent: Any = REQUIRED) -> Any:
        """A number above zero."""
        value = self(key, absent, float)
        if value is not absent and not 0 < value < math.inf:
            raise ValueError(f"{self}: {key!r} must be a number above 0, not {value!r}")
        return value

    def inside(self, key: str) -> "Options":
        """The options that an option holds; none where it is absent or null."""
        value = self(key, {})
        if not isinstance(value, Mapping):
            raise ValueError(f"{self}: {key!r} must hold options by name, not {value!r}")
        return Options(f"{self}: {key}", value)

    def only(self, key: str, *supported: Any) -> None:
        """An option of which the models have only some values, the first where it is absent."""
        value = self(key, supported[0])
        if value not in supported or isinstance(value, bool) != isinstance(supported[0], bool):
            raise self.unsupported(f"{key}={value!r}", supported)

    def act(self, key: str, absent: str) -> str:
        """An activation function in our words."""
        value = self(key, absent, str)
        if value not in _ACTS:
            raise self.unsupported(f"{key}={value!r}", _ACTS)
        return _ACTS[value]

    def done(self) -> None:
        """Refuses what was not read and would change the forward pass, and names in a warning what nobody knows."""
        for key in _UNSUPPORTED:
            if self(key, None) not in _NOTHING:
                raise self.unsupported(f"{key}={self.hf[key]!r}")
        left = sorted(key for key in self.left if self.hf[key] not in _NOTHING)
        if left:
            warnings.warn(
                f"{self}: nothing here reads {', '.join(f'{key}={self.hf[key]!r:.40}' for key in left)}; ignored, "
                "which is right unless transformers' model of this family reads it",
                stacklevel=2,
            )

    def unsupported(self, what: str, supported: Any = ()) -> ValueError:
        """The error that refuses an option of a known name for its value."""
        only = f", only {' or '.join(repr(value) for value in supported)}" if supported else ""
        return ValueError(f"{self}: {what} is not supported{only}")

    def __str__(self) -> str:
        return self.where
