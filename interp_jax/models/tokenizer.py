"""Text to tokens and back: a thin wrapper over `tokenizers` with what the tokenizer's config says."""

from collections.abc import Sequence
import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int
import numpy as np

from interp_jax.models import chat as chats

Array = jax.Array


class Tokenizer:
    """A tokenizer, its special tokens and its chat templates.

    `bos` means the same wherever it is asked for. True: begin with one bos token, besides what the text itself holds.
    False: add none. None: as the tokenizer says, that is `add_bos_token` of tokenizer_config.json or, where that is
    silent, the post-processor of tokenizer.json. A chat template writes the whole prompt, its bos token too if it wants
    one: with `chat`, None adds nothing, and True is refused where the template has written one.

    `chat` is as `models.tokenize` takes it.

    Attributes:
      backend: the `tokenizers.Tokenizer`.
      config: what tokenizer_config.json holds, chat templates from files of their own included.
      special: name -> special token, such as {"bos_token": "<s>"}.
      templates: name -> chat template; a single one is called "default".
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
        self.special = _special_tokens(self.config)
        self.templates = chats.named(self.config.get("chat_template"))
        self.bos_id, self.eos_id, self.unk_id, pad = map(self._special_id, ("bos", "eos", "unk", "pad"))
        self.pad_id: int = pad if pad is not None else self.eos_id if self.eos_id is not None else 0
        self.d_vocab: int = backend.get_vocab_size(with_added_tokens=True)
        self._string = functools.cache(self._string_of)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> "Tokenizer":
        """Reads tokenizer.json, or the folder's only file whose name ends so, and what transformers reads beside it.

        That is tokenizer_config.json, special_tokens_map.json, chat_template.jinja and additional_chat_templates/.

        Raises:
          ValueError: no such file or several, or one that is broken.
        """
        from tokenizers import Tokenizer as Backend

        folder = Path(folder)
        file = folder / "tokenizer.json"
        others = sorted(folder.glob("*tokenizer.json"))
        if not file.exists() and len(others) == 1:
            file = others[0]
        try:
            backend = Backend.from_file(str(file))
        except Exception as e:  # tokenizers raises bare Exception
            raise ValueError(f"{file}: is missing or no tokenizer ({e}); download it again") from None
        backend.no_padding()
        backend.no_truncation()
        config = _read_config(folder)
        _register(backend, config)
        return cls(backend, config)

    def write(self, folder: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, the chat templates in it."""
        self.backend.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast"} | self.config
        (folder / "tokenizer_config.json").write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def render(self, prompt: str | Sequence[Any], *, chat: Any = True) -> str:
        """The text of a prompt: a text itself, or a conversation through its template.

        Raises:
          ValueError: as `models.tokenize`.
        """
        if chat is not None and chat is not False:
            return chats.render(prompt, chat, self.templates, self.special)
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string, not a {type(prompt).__name__}; for messages use chat=True")
        return prompt

    def encode(self, prompt: str | Sequence[Any], *, bos: bool | None = None, chat: Any = None) -> list[int]:
        """The ids of a prompt.

        Raises:
          ValueError: `bos=True` and the tokenizer has no bos token, or the chat template writes it; as `render`.
        """
        return self._encode(prompt, bos, chat)[0]

    def offsets(
        self, prompt: str | Sequence[Any], *, bos: bool | None = None, chat: Any = None
    ) -> Int[np.ndarray, "position 2"]:
        """The characters `[start, end)` of the prompt's text, before any normalisation, that each token stands for.

        Tokens that share a character have the same. An added bos token has `[0, 0)`.
        """
        return np.array(self._encode(prompt, bos, chat)[1], np.int32).reshape(-1, 2)

    def decode(self, ids: Any, *, skip_special: bool = False) -> str:
        """The text of a sequence of ids. `skip_special`: without bos, eos and the like."""
        return self.backend.decode(np.asarray(ids).tolist(), skip_special_tokens=skip_special)

    def to_tokens(
        self, prompt: str | Sequence[Any], *, bos: bool | None = None, chat: Any = None
    ) -> Int[Array, " position"]:
        """The int32 tokens of one prompt, as `models.forward` takes them. Several: `models.tokenize`."""
        return jnp.asarray(self.encode(prompt, bos=bos, chat=chat), jnp.int32)

    def to_str_tokens(self, prompt_or_ids: Any, *, bos: bool | None = None, chat: Any = None) -> list[str]:
        """Each token as it stands in running text, with its space; part of a character is "�"."""
        prompt = isinstance(prompt_or_ids, str) or chat is not None
        ids = self.encode(prompt_or_ids, bos=bos, chat=chat) if prompt else np.asarray(prompt_or_ids).tolist()
        return [self._string(i) for i in ids]

    def token_id(self, text: str) -> int:
        """The id of a text that is a single token.

        Raises:
          ValueError: the text is more than one token, or unknown; with the remedy.
        """
        ids = self.encode(text, bos=False)
        if self._is_whole(text, ids):
            return ids[0]
        remedy = "choose another word"
        for other, how in ((" " + text, "begin with a space"), (text.lstrip(" "), "leave out the space")):
            if text and other != text and self._is_whole(other, self.encode(other, bos=False)):
                remedy = f"{other!r} is one: {how}"
                break
        raise ValueError(
            f"token_id: {text!r} is not one token of this tokenizer but {self.to_str_tokens(ids)}; {remedy}"
        )

    def _encode(
        self, prompt: str | Sequence[Any], bos: bool | None, chat: Any
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and offsets. Of the bos token, what the class says is done here and nowhere else."""
        text = self.render(prompt, chat=chat)
        by_template = chat is not None and chat is not False
        if bos is None:
            bos = False if by_template else self.config.get("add_bos_token")
            bos = bos and self.bos_id is not None
        try:
            encoding = self.backend.encode(text, add_special_tokens=bos is None)
        except TypeError:
            raise ValueError(
                f"a prompt must be valid Unicode, not {text!r:.60}; it has half a surrogate pair"
            ) from None
        if not bos:
            return encoding.ids, encoding.offsets
        if self.bos_id is None:
            raise ValueError("bos=True, but this tokenizer has no bos token; use bos=False")
        if by_template and encoding.ids[:1] == [self.bos_id]:
            raise ValueError(
                f"bos=True, but the chat template writes {self.special['bos_token']!r} itself; leave bos out"
            )
        return [self.bos_id, *encoding.ids], [(0, 0), *encoding.offsets]

    def _is_whole(self, text: str, ids: list[int]) -> bool:
        return len(ids) == 1 and (ids[0] != self.unk_id or self.backend.id_to_token(ids[0]) == text)

    def _special_id(self, kind: str) -> int | None:
        token = self.special.get(f"{kind}_token")
        return None if token is None else self.backend.token_to_id(token)

    def _string_of(self, token: int) -> str:
        # Decoders strip the first token's space: what stands before has to be a whole word.
        before = self.encode("a", bos=False)
        return self.decode([*before, token])[len(self.decode(before)) :]


def _read_config(folder: Path) -> dict[str, Any]:
    config, special = _read_json(folder / "tokenizer_config.json"), _read_json(folder / "special_tokens_map.json")
    if "added_tokens_decoder" not in config:  # older folders: the map has the last word
        config |= special
    files = {"default": folder / "chat_template.jinja"} if (folder / "chat_template.jinja").exists() else {}
    files |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    templates = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    if set(templates) == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": name, "template": template} for name, template in templates.items()]
    return config


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as e:
        raise ValueError(f"{file}: is no JSON object ({e}); download it again") from None


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    contents = {name: token.get("content") if isinstance(token, dict) else token for name, token in config.items()}
    return {name: token for name, token in contents.items() if name.endswith("_token") and isinstance(token, str)}


def _register(backend: Any, config: dict[str, Any]) -> None:
    """Adds the tokens that only tokenizer_config.json knows to be added or special, as transformers does."""
    from tokenizers import AddedToken

    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    listed = sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0]))
    tokens = [AddedToken(**token) for _, token in listed]
    tokens += [
        AddedToken(token, special=True, normalized=False)
        for token in _special_tokens(config).values()
        if backend.token_to_id(token) is not None
    ]
    backend.add_tokens([token for token in tokens if token.content not in known])
