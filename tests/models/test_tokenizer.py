"""Text to tokens: special tokens, padding, and the tokens of real tokenizers."""

import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Punctuation
from tokenizers.processors import TemplateProcessing

from interp_jax import models
from interp_jax.models import Decoder, Tokenizer


def test_special_tokens(word_tokenizer: Tokenizer) -> None:
    t = word_tokenizer
    assert (t.bos_id, t.eos_id, t.unk_id, t.pad_id, t.d_vocab) == (0, 1, 2, 1, 9)
    assert t.encode("the cat") == [0, 3, 4]
    assert t.encode("the cat", bos=False) == [3, 4]
    assert t.encode("the dog", bos=True) == [0, 3, 2]
    assert t.decode([0, 3, 4]) == "<s> the cat"
    assert t.decode(np.array([0, 3, 4]), skip_special=True) == "the cat"


def test_token_id(word_tokenizer: Tokenizer) -> None:
    assert word_tokenizer.token_id("mat") == 7
    for text in ("the cat", "dog", ""):
        with pytest.raises(ValueError, match="is not one token of this tokenizer .*; choose another word"):
            word_tokenizer.token_id(text)


def test_token_id_has_the_remedy(real_data: Path) -> None:
    gpt2, stories = (Tokenizer.from_folder(real_data / name) for name in ("gpt2-tokenizer", "stories260K"))
    with pytest.raises(ValueError, match=r"'Melbourne' is .* but \['Mel', 'bourne'\]; ' Melbourne' is one: begin with"):
        gpt2.token_id("Melbourne")
    with pytest.raises(ValueError, match=r"' Once' is not one token .*; 'Once' is one: leave out the space"):
        stories.token_id(" Once")


@pytest.mark.parametrize("config", [{}, {"add_bos_token": None}, {"add_bos_token": False}, {"add_bos_token": True}])
@pytest.mark.parametrize("processor", [False, True])
@pytest.mark.parametrize("bos", [None, False, True])
def test_the_bos_token(word_tokenizer: Tokenizer, config: dict[str, Any], processor: bool, bos: bool | None) -> None:
    """`bos` decides, then the config, then the post-processor. What the text writes stays."""
    backend = Backend.from_str(word_tokenizer.backend.to_str())
    if processor:
        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = Tokenizer(backend, {"bos_token": "<s>"} | config)
    asked = next(word for word in (bos, config.get("add_bos_token"), processor) if word is not None)
    assert tokenizer.encode("the cat", bos=bos) == [0] * asked + [3, 4]
    assert tokenizer.encode("<s> the cat", bos=bos) == [0] * asked + [0, 3, 4]
    assert tokenizer.offsets("the cat", bos=bos).tolist() == [[0, 0]] * asked + [[0, 3], [4, 7]]


def test_a_config_that_asks_for_a_bos_token_that_is_not_there(word_tokenizer: Tokenizer) -> None:
    assert Tokenizer(word_tokenizer.backend, {"add_bos_token": True}).encode("the cat") == [3, 4]


def test_to_tokens(word_tokenizer: Tokenizer, byte_tokenizer: Tokenizer) -> None:
    tokens = word_tokenizer.to_tokens("the cat")
    assert (tokens.tolist(), tokens.dtype) == ([0, 3, 4], "int32")
    assert word_tokenizer.to_str_tokens(tokens) == word_tokenizer.to_str_tokens("the cat") == [" <s>", " the", " cat"]
    assert byte_tokenizer.to_str_tokens(" aé") == [" ", "a", "\ufffd", "\ufffd"]
    assert byte_tokenizer.to_str_tokens("aé", chat="{{ bos_token }}!") == ["<s>", "!"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_tokenize(word_tokenizer: Tokenizer, side: str) -> None:
    tokens, mask, last = models.tokenize(word_tokenizer, ["the cat sat", "the"], side=side)
    assert (tokens.shape, tokens.dtype, mask.dtype, last.dtype) == ((2, 4), "int32", "bool", "int32")
    rows = [row[real].tolist() for row, real in zip(tokens, mask, strict=True)]
    assert rows == [[0, 3, 4, 5], [0, 3]]
    assert [int(row[i]) for row, i in zip(tokens, last, strict=True)] == [5, 3]
    assert bool(mask[1, 0]) == (side == "right")


def test_one_string_is_a_batch_of_one(word_tokenizer: Tokenizer) -> None:
    assert models.tokenize(word_tokenizer, "the cat", bos=False)[0].tolist() == [[3, 4]]


def test_last_is_what_logits_at_takes(model: Decoder, word_tokenizer: Tokenizer) -> None:
    prompts = ["the cat sat on the mat", "the"]
    left, right = (models.tokenize(word_tokenizer, prompts, side=side) for side in ("left", "right"))
    a, b = (models.forward(model, t, attention_mask=m, logits_at=at) for t, m, at in (left, right))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bad_input_is_one_line(word_tokenizer: Tokenizer) -> None:
    bare = Tokenizer(word_tokenizer.backend)
    for call, says in (
        (lambda: models.tokenize(word_tokenizer, []), "there are no prompts"),
        (lambda: models.tokenize(word_tokenizer, ["the", ""], bos=False), "prompt 1 has no tokens"),
        (lambda: models.tokenize(word_tokenizer, "the", side="top"), "side must be 'left' or 'right'"),
        (lambda: bare.encode("the", bos=True), "no bos token"),
        (lambda: models.tokenize(word_tokenizer, ["the", "\ud800"]), "prompt 1: .*must be valid Unicode"),
        (lambda: models.tokenize(word_tokenizer, ["the", b"cat"]), "prompt 1: a prompt must be a string, not a bytes"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_it_travels_with_the_model(model: Decoder, word_tokenizer: Tokenizer, tmp_path: Path) -> None:
    models.save(tmp_path / "model", model, word_tokenizer)
    _, again = models.load(tmp_path / "model")
    assert again.encode("the cat .") == word_tokenizer.encode("the cat .")
    assert (again.bos_id, again.eos_id) == (0, 1)
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json: is missing or no tokenizer"):
        models.load(tmp_path / "model")


def test_real_tokenizers(real_data: Path) -> None:
    gpt2 = Tokenizer.from_folder(real_data / "gpt2-tokenizer")
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.to_str_tokens("The capital of France", bos=True) == [
        "<|endoftext|>",
        "The",
        " capital",
        " of",
        " France",
    ]
    assert (gpt2.d_vocab, gpt2.token_id(" Paris")) == (50257, 6342)
    stories = Tokenizer.from_folder(real_data / "stories260K")
    assert stories.to_str_tokens("Once upon") == ["<s>", " Once", " upon"]
    assert stories.encode("Once upon", bos=False) == stories.encode("Once upon")[1:]


def test_folders(word_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """One file of any such name is read; with the token map's and the config's special tokens."""
    word_tokenizer.write(tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "20B_tokenizer.json")
    assert Tokenizer.from_folder(tmp_path).encode("the cat") == [0, 3, 4]

    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "</s>", "lstrip": false}}')
    assert Tokenizer.from_folder(tmp_path).encode("the cat") == [1, 3, 4]
    config = word_tokenizer.config | {"added_tokens_decoder": {"9": {"content": "<think>", "special": False}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    newer = Tokenizer.from_folder(tmp_path)  # a config that lists its tokens needs no map
    assert (newer.encode("cat<think>the"), newer.d_vocab) == ([0, 4, 9, 3], 10)

    shutil.copy(tmp_path / "20B_tokenizer.json", tmp_path / "30B_tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer.json: is missing or no tokenizer"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "30B_tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config.json: is no JSON object"):
        Tokenizer.from_folder(tmp_path)


def test_special_tokens_that_only_the_config_knows(tmp_path: Path) -> None:
    """The vocabulary has "<s>", but tokenizer.json does not say that it stands for itself in running text."""
    words = {"<s>": 0, "<": 1, "s": 2, ">": 3, "cat": 4}
    backend = Backend(WordLevel(words, unk_token="s"))
    backend.pre_tokenizer = Punctuation()
    Tokenizer(backend, {"bos_token": "<s>", "pad_token": "<nowhere>"}).write(tmp_path)
    assert backend.encode("<s>cat").ids == [1, 2, 3, 4]
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.encode("<s>cat"), tokenizer.d_vocab, tokenizer.pad_id) == ([0, 4], 5, 0)
