"""Text to tokens and back: a thin wrapper over `tokenizers` with what the tokenizer's config says."""

from collections.abc import Sequence
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int
import numpy as np

Array = jax.Array


class Tokenizer:
    """A tokenizer and its special tokens.

    Attributes:
      backend: the `tokenizers.Tokenizer`.
      config: what tokenizer_config.json holds.
      bos_id, eos_id, pad_id, unk_id: int or None. `pad_id` falls back on `eos_id`, then on 0.
      d_vocab: number of tokens, added ones included.

    Example:
      >>> from tokenizers import Tokenizer as Backend, models as kinds, pre_tokenizers
      >>> from interp_jax.models import Tokenizer
      >>> backend = Backend(kinds.WordLevel({"<s>": 0, "a": 1, "cat": 2}, unk_token="<s>"))
      >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
      >>> tokenizer = Tokenizer(backend, {"bos_token": "<s>", "add_bos_token": True})
      >>> tokenizer.encode("a cat"), tokenizer.decode([1, 2])
      ([0, 1, 2], 'a cat')
    """

    def __init__(self, backend: Any, config: dict[str, Any] | None = None):
        self.backend = backend
        self.config = dict(config or {})
        self.bos_id, self.eos_id, self.unk_id = self._special("bos"), self._special("eos"), self._special("unk")
        pad = self._special("pad")
        self.pad_id: int = pad if pad is not None else self.eos_id if self.eos_id is not None else 0
        self.d_vocab: int = backend.get_vocab_size(with_added_tokens=True)
        self._string = functools.cache(self._string_of)

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Reads tokenizer.json and, where they are, tokenizer_config.json and special_tokens_map.json."""
        from tokenizers import Tokenizer as Backend

        try:
            backend = Backend.from_file(str(folder / "tokenizer.json"))
        except Exception as e:  # tokenizers raises bare Exception
            raise ValueError(
                f"{folder / 'tokenizer.json'}: is missing or no tokenizer ({e}); download it again"
            ) from None
        backend.no_padding()
        backend.no_truncation()
        config: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / name).exists():
                config |= json.loads((folder / name).read_text(encoding="utf-8"))
        return cls(backend, config)

    def write(self, folder: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        self.backend.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast"} | self.config
        (folder / "tokenizer_config.json").write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]:
        """The ids of a text. `bos`: begin with the bos token; None: if the tokenizer's config says so.

        Raises:
          ValueError: `bos=True` and the tokenizer has no bos token.
        """
        if bos is None:
            bos = self.config.get("add_bos_token")
        if bos is None:
            return self.backend.encode(text).ids
        ids = self.backend.encode(text, add_special_tokens=False).ids
        if not bos:
            return ids
        if self.bos_id is None:
            raise ValueError("encode: bos=True, but this tokenizer has no bos token; use bos=False")
        return [self.bos_id, *ids]

    def decode(self, ids: Any, *, skip_special: bool = False) -> str:
        """The text of a sequence of ids. `skip_special`: without bos, eos and the like."""
        return self.backend.decode(np.asarray(ids).tolist(), skip_special_tokens=skip_special)

    def to_str_tokens(self, text_or_ids: Any, *, bos: bool | None = None) -> list[str]:
        """Each token as it stands in running text, with its space."""
        ids = self.encode(text_or_ids, bos=bos) if isinstance(text_or_ids, str) else np.asarray(text_or_ids).tolist()
        return [self._string(i) for i in ids]

    def token_id(self, text: str) -> int:
        """The id of a text that is a single token.

        Raises:
          ValueError: the text is more than one token, or unknown.
        """
        ids = self.encode(text, bos=False)
        if len(ids) != 1 or (ids[0] == self.unk_id and self.backend.id_to_token(ids[0]) != text):
            raise ValueError(f"token_id: {text!r} is not one token of this tokenizer but {self.to_str_tokens(ids)}")
        return ids[0]

    def _special(self, kind: str) -> int | None:
        token = self.config.get(f"{kind}_token")
        if isinstance(token, dict):
            token = token.get("content")
        return None if token is None else self.backend.token_to_id(token)

    def _string_of(self, token: int) -> str:
        # Decoders strip the first token's space: the second copy of two has it.
        return self.decode([token, token])[len(self.decode([token])) :]


def tokenize(
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    *,
    side: str = "left",
    bos: bool | None = None,
    chat: Any = None,
) -> tuple[Int[Array, "batch position"], Bool[Array, "batch position"], Int[Array, " batch"]]:
    """Prompts to a padded batch.

    Args:
      tokenizer: a `Tokenizer`.
      prompts: one string or several.
      side: where the padding goes, `"left"` or `"right"`.
      bos: begin each prompt with the bos token; None: if the tokenizer's config says so.
      chat: chat templates are not supported yet; must be None.

    Returns:
      tokens int32, attention_mask bool (False at padding), and last int32: the column of the last real token of each
      prompt, as `logits_at` takes it.

    Raises:
      ValueError: no prompts, a prompt without any token, or an unknown `side`.
      NotImplementedError: `chat` is given.

    Example:
      >>> from tokenizers import Tokenizer as Backend, models as kinds, pre_tokenizers
      >>> from interp_jax import models
      >>> backend = Backend(kinds.WordLevel({"<s>": 0, "a": 1, "cat": 2}, unk_token="<s>"))
      >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
      >>> tokens, mask, last = models.tokenize(models.Tokenizer(backend), ["a cat", "cat"])
      >>> tokens.tolist(), mask.astype(int).tolist(), last.tolist()
      ([[1, 2], [0, 2]], [[1, 1], [0, 1]], [1, 1])
    """
    if chat is not None:
        raise NotImplementedError("tokenize: chat templates are not supported yet; pass the formatted text")
    if side not in ("left", "right"):
        raise ValueError(f"tokenize: side must be 'left' or 'right', not {side!r}")
    rows = [tokenizer.encode(prompt, bos=bos) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
    if not rows:
        raise ValueError("tokenize: there are no prompts")
    if not all(rows):
        raise ValueError(
            f"tokenize: prompt {[len(row) for row in rows].index(0)} has no tokens; use bos=True or drop it"
        )
    width = max(len(row) for row in rows)
    tokens = np.full((len(rows), width), tokenizer.pad_id, np.int32)
    mask = np.zeros((len(rows), width), bool)
    for i, row in enumerate(rows):
        where = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        tokens[i, where], mask[i, where] = row, True
    last = np.full(len(rows), width - 1) if side == "left" else np.array([len(row) - 1 for row in rows])
    return jnp.asarray(tokens), jnp.asarray(mask), jnp.asarray(last, jnp.int32)
