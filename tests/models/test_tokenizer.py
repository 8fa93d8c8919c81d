"""Text to tokens: special tokens, padding, and the tokens of real tokenizers."""

from pathlib import Path

import numpy as np
import pytest

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
        with pytest.raises(ValueError, match="is not one token of this tokenizer"):
            word_tokenizer.token_id(text)


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
    ):
        with pytest.raises(ValueError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(NotImplementedError, match="chat templates are not supported yet"):
        models.tokenize(word_tokenizer, "the", chat=True)


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
