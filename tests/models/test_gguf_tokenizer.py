"""Tokenizers from llama.cpp's metadata: real vocabularies back from it, how text is split, special tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from interp_jax.models import Tokenizer, gguf_tokenizer

HARD = [
    "Hello world",
    " The  quick\n\nbrown fox",
    "1 22 333 4,444 3.14159",
    "def f(x):\n    return x**2\n\t# tab",
    "don't we'll I'M THEY'RE",
    "   leading, trailing   ",
    "\r\n\r\n x\x00\x01",
    "naïve 日本 한국어 русский हिन्दी",
    "🙂 👩‍👩‍👧‍👦 e\u0301 a\u00a0b\u2003c ½²",
    "",
]
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6


def made(architecture: str = "llama", **ggml: Any) -> Tokenizer:
    metadata = {f"tokenizer.{'' if key == 'chat_template' else 'ggml.'}{key}": value for key, value in ggml.items()}
    tokenizer = gguf_tokenizer.read(Path("a.gguf"), {"general.architecture": architecture, **metadata})
    assert tokenizer is not None
    return tokenizer


def byte_level(pre: str, merges: list[str] = [], architecture: str = "llama", **ggml: Any) -> Tokenizer:  # noqa: B006
    tokens = ["<s>", "</s>", "<tool>", *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]
    kinds = [CONTROL, CONTROL, USER] + [NORMAL] * (len(tokens) - 3)
    about = {
        "model": "gpt2",
        "tokens": tokens,
        "token_type": kinds,
        "merges": merges,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return made(architecture, **(about | {"pre": pre} | ggml))


def sentencepiece(folder: Path) -> dict[str, Any]:
    """The metadata of a real vocabulary of sentencepiece, with the scores that it has in its own files."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (len(tokens) - 259)
    scores = [0.0] * 259 + [float(-i) for i in range(len(tokens) - 259)]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return {"model": "llama", "tokens": tokens, "scores": scores, "token_type": kinds, **ids}


def test_a_real_vocabulary_of_bytes(real_data: Path) -> None:
    """GPT-2's: the same ids as from its own file."""
    own = Tokenizer.from_folder(real_data / "gpt2-tokenizer")
    model = json.loads((real_data / "gpt2-tokenizer" / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [NORMAL] * (len(tokens) - 1) + [CONTROL]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    about = {"model": "gpt2", "tokens": tokens, "token_type": kinds, "merges": merges, "bos_token_id": 50256}
    for architecture, pre in (("gpt2", "default"), ("llama", "gpt-2")):
        again = made(architecture, **about, pre=pre)
        assert (again.d_vocab, again.bos_id) == (own.d_vocab, own.bos_id)
        for text in [*HARD, "a<|endoftext|>b"]:
            assert again.encode(text) == own.encode(text), text
            assert again.decode(again.encode(text)) == text


def test_a_real_vocabulary_of_sentencepiece(real_data: Path, tmp_path: Path) -> None:
    """stories260K's: merges from the scores, bytes for what is not there, a space before, and bos."""
    own, again = Tokenizer.from_folder(real_data / "stories260K"), made(**sentencepiece(real_data / "stories260K"))
    again.write(tmp_path)
    for tokenizer in (again, Tokenizer.from_folder(tmp_path)):
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.d_vocab) == (1, 2, 0, own.d_vocab)
        for text in [*HARD, "a</s>b", "<unk> c"]:
            assert tokenizer.encode(text) == own.encode(text), text
            assert tokenizer.decode(tokenizer.encode(text)) == own.decode(own.encode(text)), text
            assert tokenizer.encode(text, bos=False) == own.encode(text, bos=False)


def test_without_a_space_before_and_without_bos(real_data: Path) -> None:
    about = sentencepiece(real_data / "stories260K")
    tokenizer = made(**about, add_space_prefix=False, add_bos_token=False)
    assert tokenizer.decode(tokenizer.encode(" a")) == " a" and tokenizer.decode(tokenizer.encode("a")) == "a"
    assert tokenizer.encode("a")[0] != 1 and tokenizer.encode("a", bos=True)[0] == 1
    both = made(**about, add_eos_token=True)
    assert both.encode("a")[0] == 1 and both.encode("a")[-1] == 2


def test_gemmas_spaces_and_order() -> None:
    """Its tokens of spaces are written with spaces, and its merges follow the order of the tokens, not their scores."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "\n\n", "  ", "   ", "▁", "a", "b", "▁a", "ab", "\n"]
    tokens += [f"<0x{i:02X}>" for i in range(256)]
    kinds = [CONTROL] * 4 + [USER] * 3 + [NORMAL] * 6 + [BYTE] * 256
    scores = [-1000.0] * 7 + [-9.0, -8.0, -7.0, -6.0, -1.0, -2.0] + [-1000.0] * 256
    about = {"tokens": tokens, "scores": scores, "token_type": kinds, "bos_token_id": 2, "unknown_token_id": 3}
    gemma = made("gemma2", model="llama", add_space_prefix=False, **about)
    assert gemma.encode("a   b\n\n c") == [2, 8, 6, 9, 4, 7, 13 + ord("c")]
    assert gemma.encode(" ab", bos=False) == [10, 9]  # "▁a" stands before "ab"
    llama = made("llama", model="llama", add_space_prefix=False, **about)
    assert llama.encode(" ab", bos=False) == [7, 11]  # "ab" scores more than "▁a"
    assert gemma.decode(gemma.encode("a   b\n\n c", bos=False)) == "a   b\n\n c"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["a", " 1234", ",", " I", "'", "M", "   ", " x", "\r", "\n", "y"]),  # 'M is no ending, in capitals
        ("smollm", ["a", " ", "1", "2", "3", "4", ",", " I", "'", "M", "   ", " x", "\r", "\n", "y"]),
        ("llama-bpe", ["a", " ", "123", "4", ",", " I", "'M", "   ", " x", "\r\n", "y"]),
        ("qwen2", ["a", " ", "1", "2", "3", "4", ",", " I", "'M", "   ", " x", "\r\n", "y"]),
        ("tekken", ["a", " ", "1", "2", "3", "4", ",", " I", "'M", "   ", " x", "\r\n", "y"]),
        ("gpt-4o", ["a", " ", "123", "4", ",", " I'M", "   ", " x", "\r\n", "y"]),
    ],
)
def test_how_text_is_split(pre: str, pieces: list[str]) -> None:
    text = "a 1234, I'M    x\r\ny"
    offsets = [span for _, span in byte_level(pre).backend.pre_tokenizer.pre_tokenize_str(text)]
    found = [text[start:stop] for start, stop in offsets]
    assert found == pieces


def test_characters_are_composed_for_qwen() -> None:
    for pre, text in (("qwen2", "é"), ("gpt-2", "e\u0301")):
        assert byte_level(pre).decode(byte_level(pre).encode("e\u0301")) == text


def test_words_of_the_vocabulary_are_whole_for_llama_3() -> None:
    """Its merges need not lead to every word; bos is there unless the file says otherwise."""
    merges = ["a b", "c d"]
    tokenizer = byte_level("llama-bpe", merges)
    tokens = [*tokenizer.backend.get_vocab()]
    extended = byte_level("llama-bpe", merges, tokens=sorted(tokens, key=tokenizer.backend.token_to_id) + ["abcd"])
    assert extended.to_str_tokens("abcd") == ["<s>", "abcd"]
    assert byte_level("gpt-2", merges).to_str_tokens("abcd") == ["ab", "cd"]
    assert byte_level("llama-bpe", merges, add_bos_token=False).to_str_tokens("ab") == ["ab"]


def test_special_and_whole_tokens() -> None:
    tokenizer = byte_level("gpt-2")
    ids = tokenizer.encode("a<tool>b</s>")
    assert ids[1] == 2 and ids[3] == 1
    assert tokenizer.decode(ids, skip_special=True) == "a<tool>b"
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 1)
    assert byte_level("gpt-2", eos_token_id=10**6).eos_id is None


def test_templates() -> None:
    assert byte_level("gpt-2", chat_template="{{ bos_token }}!").render("x") == "<s>!"
    named = gguf_tokenizer._templates({"tokenizer.chat_template": "D", "tokenizer.chat_template.tool_use": "T"})
    assert Tokenizer(byte_level("gpt-2").backend, {"chat_template": named}).templates == {
        "default": "D",
        "tool_use": "T",
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"pre": "chameleon"},
            "pre-tokenizer 'chameleon' is not known here, and the model is loaded without a tokenizer",
        ),
        ({"pre": "default"}, "pre-tokenizer 'default' is not known here"),
        ({"model": "rwkv"}, "tokenizer 'rwkv' is not known here"),
    ],
)
def test_what_is_not_known_is_named(change: dict[str, str], says: str) -> None:
    """A model is of use without a tokenizer, and a wrong one would be of harm."""
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "general.architecture": "llama"}
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.warns(UserWarning) as caught:
        assert gguf_tokenizer.read(Path("a.gguf"), metadata) is None
    (warning,) = caught
    assert str(warning.message).startswith("a.gguf: ") and says in str(warning.message)
    assert "models.Tokenizer.from_folder" in str(warning.message)


def test_a_damaged_one() -> None:
    with pytest.raises(ValueError, match="^a.gguf: its tokenizer is damaged .*; download it again$"):
        byte_level("gpt-2", ["a b"], tokens=["a", "b"])
