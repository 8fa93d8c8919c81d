"""Text to tokens: no more of it than is asked for, whole rows, and files that are none."""

import numpy as np
import pytest

from interp_jax import models
from interp_jax.data import corpus


def test_not_a_token_more(tmp_path) -> None:
    _, tokenizer = models.load("microworld")
    file = tmp_path / "text.txt"
    file.write_text("the dogs near the tree sleep .\n" * 3000, encoding="utf-8")
    for text, n in ((file, 5000), (None, 3001)):
        read = corpus.read(tokenizer, text, n_tokens=n, n_positions=32, seed=0)
        assert int(read.mask.sum()) <= n
        assert int(read.mask.sum()) > 0.9 * n


def test_rows_begin_with_the_bos_token_and_hold_one_document() -> None:
    _, tokenizer = models.load("microworld")
    documents = ["the dogs near the tree sleep .", "the book ."]
    tokens, mask = corpus.pack(tokenizer, iter(documents), n_tokens=100, n_positions=5)
    assert (tokens[:, 0] == tokenizer.bos_id).all() and (tokens[~mask] == tokenizer.pad_id).all()
    said = np.concatenate([row[real][1:] for row, real in zip(tokens, mask, strict=True)]).tolist()
    assert said == [token for text in documents for token in tokenizer.encode(text, bos=False)]


def test_another_seed_is_another_text() -> None:
    _, tokenizer = models.load("microworld")
    rows = [corpus.read(tokenizer, n_tokens=60_000, n_positions=64, seed=seed).tokens for seed in (0, 1)]
    first, second = ({tuple(row) for row in tokens.tolist()} for tokens in rows)
    assert len(first & second) < 0.1 * len(second)  # some sentences are short, and come up again


def test_what_is_no_text_is_refused(tmp_path) -> None:
    _, tokenizer = models.load("microworld")
    (tmp_path / "short.txt").write_text("the book .", encoding="utf-8")
    with pytest.raises(ValueError, match="is a folder; give a text file"):
        corpus.read(tokenizer, tmp_path)
    with pytest.raises(ValueError, match="at least 512 are needed; give a longer text"):
        corpus.read(tokenizer, tmp_path / "short.txt", n_positions=32)
    with pytest.raises(ValueError, match="at least 512 are needed; n_tokens=100 is too small"):
        corpus.read(tokenizer, n_tokens=100, n_positions=32)
    for n in (0, 1):
        with pytest.raises(ValueError, match=f"n_positions={n}: a row has no place for text; give at least 2"):
            corpus.read(tokenizer, n_positions=n)


@pytest.mark.parametrize("world", ["microworld-chat", "microworld-context"])
def test_a_world_is_read_by_its_own_tokenizer(world: str) -> None:
    """Without a file: no word of the text is unknown, as those of another world are."""
    _, tokenizer = models.load(world)
    text = corpus.read(tokenizer, n_tokens=1000, n_positions=32)
    assert not (text.tokens == tokenizer.encode("xyzzy", bos=False)[0]).any()
