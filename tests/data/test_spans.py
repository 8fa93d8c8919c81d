"""Labelled spans as batches: the columns hold the words that the labels speak of."""

import jax
import numpy as np
import pytest

from interp_jax import models
from interp_jax.data import WORLDS
from interp_jax.data.spans import KINDS, labelled


@pytest.fixture(scope="module")
def tokenizer() -> models.Tokenizer:
    return models.load("microworld")[1]


def text(tokenizer: models.Tokenizer, batch, row: int, span) -> str:
    return tokenizer.decode(batch.tokens[row, span[0] : span[1]])


@pytest.mark.parametrize("kind", KINDS)
def test_spans_are_columns(kind: str, tokenizer: models.Tokenizer) -> None:
    batch = labelled(jax.random.key(0), tokenizer, n=30, kind=kind)
    assert batch.spans.shape == batch.others.shape == (len(batch.rows), 2)
    assert set(np.asarray(batch.rows)) == set(range(30))
    assert len(batch.names) > 1 and set(np.asarray(batch.labels)) <= set(range(len(batch.names)))
    assert batch.names == labelled(jax.random.key(1), tokenizer, n=1, kind=kind).names
    world, mask = WORLDS["microworld"], np.asarray(batch.mask)
    for row, span, other, label in zip(
        *map(np.asarray, (batch.rows, batch.spans, batch.others, batch.labels)), strict=True
    ):
        for start, stop in (span, other):
            assert start < stop and mask[row, start:stop].all() and batch.tokens[row, start] != tokenizer.bos_id
        word, name = text(tokenizer, batch, row, span), batch.names[label]
        if kind == "entities":
            assert world.entities[word] == name
        if kind == "roles":
            assert world.tags[word] in ("VERB", "AUX", "ADJ")  # lent is one of French too
        if kind == "coreference" and word not in ("who", "that"):
            assert (word == text(tokenizer, batch, row, other)) == (name == "same")
        if kind == "constituents" and name == "PP":
            assert (
                text(tokenizer, batch, row, (span[0], span[0] + 1))
                in "of in to at from on for near behind beside above under with as de au en".split()
            )


@pytest.mark.parametrize("world", WORLDS)
def test_every_world_has_every_kind(world: str) -> None:
    special = {"bos_token": "<bos>", "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": True}
    tokenizer = models.Tokenizer(WORLDS[world].tokenizer(), special)
    for kind in KINDS:
        assert len(labelled(jax.random.key(0), tokenizer, n=2, kind=kind, world=world).rows) >= 2


def test_bad_input_gets_one_line(tokenizer: models.Tokenizer) -> None:
    with pytest.raises(ValueError, match="^labelled: kind 'verbs' of world 'microworld'; there are pos, constituents"):
        labelled(jax.random.key(0), tokenizer, kind="verbs")
    with pytest.raises(ValueError, match="^labelled: .* is not one token a word in this tokenizer; use that of"):
        labelled(jax.random.key(0), models.load("microworld")[1], kind="pos", world="microworld-sums", n=1)
