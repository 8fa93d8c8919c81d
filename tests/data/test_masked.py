"""Masked language modelling: what is hidden, and that a text comes back."""

import numpy as np
import pytest

from interp_jax.data import masked
from interp_jax.data.masked import CLS, MASK, PAD, SEP, SPECIAL

TEXTS = ["the old sailor went to sea in a small boat .", "a small cat sat in the old boat .", ""]


@pytest.fixture(scope="module")
def tokenizer():
    return masked.wordpieces(TEXTS * 3, d_vocab=80)


def test_the_pieces_say_the_text(tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(5))
    assert tokenizer.get_vocab_size() <= 80
    assert tokenizer.decode(tokenizer.encode("The OLD cat").ids) == "the old cat"


def test_rows_hold_every_piece_once(tokenizer) -> None:
    tokens = masked.rows(tokenizer, TEXTS, 8)
    assert (tokens[:, 0] == CLS).all() and ((tokens == SEP).sum(1) == 1).all()
    pieces = [i for text in TEXTS for i in tokenizer.encode(text, add_special_tokens=False).ids]
    assert tokens[tokens >= len(SPECIAL)].tolist() == pieces
    for row in tokens:
        end = int(np.argmax(row == SEP))
        assert (row[end + 1 :] == PAD).all() and not (row[1:end] == PAD).any()


def test_a_row_without_place_for_text_is_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="n_positions=2: .* give at least 3"):
        masked.rows(tokenizer, TEXTS, 2)


def test_what_is_hidden_has_the_paper_s_shares() -> None:
    tokens = np.full((400, 50), 9, np.int32)
    tokens[:, 0], tokens[:, -1] = CLS, PAD
    seen, told = masked.hide(np.random.default_rng(0), tokens, 1000)
    assert not told[:, [0, -1]].any() and (seen[~told] == tokens[~told]).all()
    n = told.sum()
    assert abs(n / (400 * 48) - 0.15) < 0.01
    for share, found in ((0.8, seen[told] == MASK), (0.1, seen[told] == 9), (0.1, ~np.isin(seen[told], [MASK, 9]))):
        assert abs(found.mean() - share) < 4 * np.sqrt(share * (1 - share) / n)  # four standard errors
