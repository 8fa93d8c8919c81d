"""From characters to tokens: against bytes, on which a byte-level tokenizer works, and in edits under padding."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import at, zero
from interp_jax.models import Decoder, Tokenizer

TEXTS = st.lists(st.text(st.sampled_from("ab é\u0301日🙂\u200d\n"), min_size=1, max_size=9), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, side=st.sampled_from(["left", "right"]), bos=st.booleans(), data=st.data())
def test_bytes(byte_tokenizer: Tokenizer, texts: list[str], side: str, bos: bool, data: st.DataObject) -> None:
    """One token a byte: the columns of a span are those of its bytes."""
    spans = []
    for text in texts:
        start = data.draw(st.integers(0, len(text) - 1))
        spans.append((start, data.draw(st.integers(start + 1, len(text)))))
    tokens, real, _ = map(np.asarray, models.tokenize(byte_tokenizer, texts, side=side, bos=bos))
    mask, first, last = map(np.asarray, models.locate(byte_tokenizer, texts, spans, side=side, bos=bos))
    assert mask.shape == tokens.shape and not (mask & ~real).any()
    for row, (text, (start, end)) in enumerate(zip(texts, spans, strict=True)):
        assert byte_tokenizer.decode(tokens[row][mask[row]]) == text[start:end]
        before = bos + len(text[:start].encode())
        assert first[row] == before and last[row] == before + len(text[start:end].encode()) - 1
        assert real[row].cumsum()[mask[row].argmax()] - 1 == first[row]


def byte_ranges(tokenizer: Tokenizer, ids: list[int]) -> np.ndarray:
    """[position 2] bytes of each token, from the lengths of the vocabulary's strings."""
    ends = np.cumsum([len(tokenizer.backend.id_to_token(i)) for i in ids])
    return np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)


@pytest.mark.parametrize("name", ["gpt2-tokenizer", "pythia-tokenizer"])
def test_real_byte_level_tokenizers(real_data: Path, name: str) -> None:
    tokenizer = Tokenizer.from_folder(real_data / name)
    for text in (
        "When Mary and Zbigniew went home, Mary's   dog 👨\u200d👩\u200d👧 slept.\n\n日本 naïve <|endoftext|> x",
        "  Ünïcödé\t🙂🙂 end ",
    ):
        ranges = byte_ranges(tokenizer, tokenizer.encode(text))
        for start in range(len(text)):
            for end in range(start + 1, min(start + 12, len(text)) + 1):
                if text[start] == " " or text[end - 1] == " ":
                    continue  # Pythia counts spaces to no token
                low, high = len(text[:start].encode()), len(text[:end].encode())
                want = (ranges[:, 0] < high) & (ranges[:, 1] > low)
                mask, *_ = models.locate(tokenizer, text, [(start, end)])
                np.testing.assert_array_equal(mask[0], want, err_msg=text[start:end])


def test_names(real_data: Path) -> None:
    """A name of one token and one of four, in a prompt and in a conversation."""
    tokenizer = Tokenizer.from_folder(real_data / "gpt2-tokenizer")
    prompts, names = ["Then Mary left", "I saw that Zbigniew was here"], ["Mary", "Zbigniew"]
    for options in ({}, {"bos": True}, {"chat": "User: {{ messages[0].content }}\n"}):
        for side in ("left", "right"):
            tokens, *_ = models.tokenize(tokenizer, prompts, side=side, **options)
            mask, first, last = models.locate(tokenizer, prompts, names, side=side, **options)
            found = [tokenizer.decode(row[here]) for row, here in zip(tokens, mask, strict=True)]
            assert found == [" Mary", " Zbigniew"]
            assert (last - first).tolist() == [0, 3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_edits_meet_the_tokens(model: Decoder, word_tokenizer: Tokenizer, side: str) -> None:
    prompts = ["the cat sat on the mat .", "the cat", "on the mat sat the cat"]
    tokens, real, _ = models.tokenize(word_tokenizer, prompts, side=side)
    mask, first, last = models.locate(word_tokenizer, prompts, "cat", side=side)
    np.testing.assert_array_equal(mask, tokens == word_tokenizer.token_id("cat"))

    def embed(edit: object) -> np.ndarray:
        edited = ij.intervene(lambda m: models.forward(m, tokens, attention_mask=real), {"embed": edit})
        return np.asarray(ij.capture(edited, "embed", output=False)(model)["embed"])

    by_mask, by_position = embed(at(zero(), mask=mask)), embed(at(zero(), position=first))
    np.testing.assert_array_equal(by_mask, by_position)
    np.testing.assert_array_equal((by_mask == 0).all(-1), mask)
    assert jnp.array_equal(first, last)


def test_bad_input_is_one_line(word_tokenizer: Tokenizer) -> None:
    for prompts, spans, says in (
        ("the cat", "dog", "prompt 0: 'dog' must stand in the text once, not 0 times"),
        (["the", "the cat the"], "the", r"prompt 1: 'the' must stand in the text once, not 2 times at 0, 8; give"),
        ("the cat", [(3, 4)], "no token covers the characters 3 to 4"),
        ("the cat", [(2, 2)], r"the span \(2, 2\) is empty or outside the text of 7 characters"),
        ("the cat", [(4, 9)], r"the span \(4, 9\) is empty or outside"),
        ("the cat", [(1, 2, 3)], r"a span is a string or \(start, end\) in characters, not \(1, 2, 3\)"),
        (["the cat", "the"], ["cat"], "there are 2 prompts, but 1 spans"),
        ([], "cat", "there are no prompts"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            models.locate(word_tokenizer, prompts, spans)
        assert "\n" not in str(caught.value)
