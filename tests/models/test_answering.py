"""A model at hand as a chat model: what it writes is the likeliest, and what it reads is what `forward` says."""

import jax
import numpy as np
import pytest

from interp_jax import models
from interp_jax.io.chat import Request

TEXTS = ["Emma gave Adam the", "The girl near the"]


@pytest.fixture(scope="module")
def world():
    return models.load("microworld", dtype="float32")


def asked(text: str, **options) -> Request:
    return Request(({"role": "user", "content": text},), **options)


def test_written(world) -> None:
    model, tokenizer = world
    long, short = models.answering(model, tokenizer)(
        [asked(TEXTS[0], max_tokens=4, top=3), asked("Adam", max_tokens=2)]
    )
    assert short.tokens == () and len(tokenizer.encode(short.text, bos=False)) == 2
    assert long.text == "".join(token.text for token in long.tokens) and len(long.tokens) == 4
    prompt = tokenizer.encode(TEXTS[0], bos=False)
    new = tokenizer.encode(TEXTS[0] + long.text, bos=False)[len(prompt) :]
    logs = np.asarray(jax.nn.log_softmax(models.forward(model, np.array([prompt + new]))))[0, len(prompt) - 1 :]
    for token, at, row in zip(new, long.tokens, logs[:-1], strict=True):
        assert token == row.argmax() and at.log_prob == pytest.approx(row[token], abs=1e-4)
        assert list(at.top.values()) == pytest.approx(np.sort(row)[::-1][:3].tolist(), abs=1e-4)


def test_read(world) -> None:
    model, tokenizer = world
    (reply,) = models.answering(model, tokenizer)([asked(TEXTS[0], answer=" book .", top=2)])
    prompt, whole = (tokenizer.encode(text, bos=False) for text in (TEXTS[0], TEXTS[0] + " book ."))
    logs = jax.nn.log_softmax(models.forward(model, np.array([whole])))[0]
    want = [float(logs[i - 1, whole[i]]) for i in range(len(prompt), len(whole))]
    assert [token.log_prob for token in reply.tokens] == pytest.approx(want, abs=1e-4)
    assert "".join(token.text for token in reply.tokens) == " book ." and len(reply.tokens[0].top) == 2


def test_a_request_that_is_too_long_is_told_of_that_request_alone(world) -> None:
    replies = models.answering(*world)([asked(" ".join(TEXTS * 9)), asked(TEXTS[0], max_tokens=1)])
    assert "more than n_ctx 64" in replies[0].error and replies[1].text and not replies[1].error
    with pytest.raises(TypeError, match="needs a Decoder"):
        models.answering(None, world[1])
