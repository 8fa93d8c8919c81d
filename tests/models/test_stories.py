"""The trained model of shared/data/stories260K."""

from pathlib import Path

import numpy as np

from interp_jax import models

STORY = " there was a little girl named Lily. She loved to play outside in the park."


def test_it_tells_its_story(real_data: Path) -> None:
    model, tokenizer = models.load(real_data / "stories260K")
    tokens, mask, last = models.tokenize(tokenizer, ["Once upon a time,", "Lily and Tom"])
    assert int(tokens[0, 0]) == tokenizer.bos_id
    out = models.generate(model, tokens, 40, attention_mask=mask)
    assert tokenizer.decode(out[0], skip_special=True).startswith("Once upon a time," + STORY)
    at_last = models.forward(model, tokens, attention_mask=mask, logits_at=last)
    np.testing.assert_array_equal(at_last.argmax(-1), out[:, tokens.shape[1]])
