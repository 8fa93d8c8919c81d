"""Tokens and text: the tokenizers in the files, greedy continuations, answers in a chat."""

from typing import Any

import numpy as np
import pytest

from interp_jax import models
from tests.real.conftest import Real

pytestmark = pytest.mark.real
TEXTS = [
    "The capital of France is",
    " The  quick\n\nbrown fox",
    "1 22 333 4,444 3.14159 x=10",
    "def f(x):\n    return x**2 + 3.14\n\t# tab",
    "don't we'll I'M THEY'RE",
    "   leading, trailing   ",
    "\r\n\r\n x\x00\x01",
    "naïve 日本 한국어 русский عربى हिन्दी ไทย",
    "🙂 👩‍👩‍👧‍👦 e\u0301 a\u00a0b\u2003c Ω≈ç√",
    "<|im_start|>user\nhi<|im_end|> <bos>hi<eos> <start_of_turn>",
    "",
]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["smollm", "gemma"])
def test_tokens_are_those_of_transformers(name: str, request: pytest.FixtureRequest) -> None:
    transformers, here = pytest.importorskip("transformers"), request.getfixturevalue(name)
    peer = transformers.AutoTokenizer.from_pretrained(here.path.parent, gguf_file=here.path.name)
    for text in TEXTS:
        ids = here.tokenizer.encode(text)
        assert ids == peer(text)["input_ids"], text
        assert here.tokenizer.decode(ids) == peer.decode(ids), text
    ends = (here.tokenizer.bos_id, here.tokenizer.eos_id, here.tokenizer.unk_id, here.tokenizer.pad_id)
    assert ends == (peer.bos_token_id, peer.eos_token_id, peer.unk_token_id, peer.pad_token_id)
    assert here.tokenizer.d_vocab == len(peer) == here.model.config.d_vocab


def test_numerals_are_digits_of_their_own(smollm: Real) -> None:
    """As in SmolLM2's own tokenizer.json (`Digits`); what transformers makes of the file joins them to the space."""
    assert smollm.tokenizer.to_str_tokens("a 12½ ²") == ["a", " ", "1", "2", "½", " ", "²"]


def test_tokens_come_back_as_text(smollm: Real, gemma: Real) -> None:
    for tokenizer in (smollm.tokenizer, gemma.tokenizer):
        for text in TEXTS[:-2]:
            assert tokenizer.decode(tokenizer.encode(text, bos=False)) == text


def next_words(here: Real, text: str, n_tokens: int) -> str:
    tokens = here.tokenizer.to_tokens(text)[None]
    out = models.generate(here.model, tokens, n_tokens)
    return here.tokenizer.decode(np.asarray(out)[0, tokens.shape[1] :])


def test_what_they_know(smollm: Real, gemma: Real) -> None:
    assert next_words(smollm, "The capital of France is", 1) == " Paris"
    assert next_words(gemma, "The Eiffel Tower is in the city of", 1) == " Paris"


def test_it_answers_in_a_chat(smollm: Real) -> None:
    tokens, mask, _ = models.tokenize(smollm.tokenizer, ["What is the capital of France?"], chat=True)
    out = np.asarray(models.generate(smollm.model, tokens, 12, attention_mask=mask))
    assert "The capital of France is Paris." in smollm.tokenizer.decode(out[0, tokens.shape[1] :])


@pytest.mark.parity
def test_greedy_text_is_that_of_transformers(smollm: Real, smollm_peer: Any) -> None:
    torch = pytest.importorskip("torch")
    tokens = torch.tensor([smollm.tokenizer.encode("Once upon a time, in a village by the sea,")])
    with torch.no_grad():
        want = smollm_peer.generate(tokens, do_sample=False, max_new_tokens=24, eos_token_id=None, pad_token_id=2)
    np.testing.assert_array_equal(models.generate(smollm.model, tokens.numpy(), 24), want.numpy())
