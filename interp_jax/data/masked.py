"""Masked language modelling: word pieces trained on a text, rows of them, and what is hidden from the model.

Reference: Devlin et al. (2019), "BERT", https://arxiv.org/abs/1810.04805.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tokenizers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
PAD, UNK, CLS, SEP, MASK = range(5)


def wordpieces(texts: Iterable[str], d_vocab: int) -> "tokenizers.Tokenizer":
    """A lower-case WordPiece tokenizer of at most d_vocab tokens, trained on the texts; encoding puts [CLS] and [SEP].

    >>> tokenizer = wordpieces(["the cat sat", "the cats sat"] * 5, d_vocab=40)
    >>> tokenizer.encode("The cats").tokens
    ['[CLS]', 'the', 'cats', '[SEP]']
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    built = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=d_vocab, special_tokens=list(SPECIAL), show_progress=False)
    built.train_from_iterator(texts, trainer)
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return built


def rows(tokenizer: "tokenizers.Tokenizer", texts: Iterable[str], n_positions: int) -> np.ndarray:
    """Each text cut to rows [CLS] … [SEP], padded on the right: int32 [row position]. Texts without words give none.

    >>> tokenizer = wordpieces(["a b c"], d_vocab=20)
    >>> rows(tokenizer, ["a b c"], 4).tolist() == [[CLS, *tokenizer.encode("a b").ids[1:3], SEP],
    ...                                            [CLS, tokenizer.token_to_id("c"), SEP, PAD]]
    True
    """
    width = n_positions - 2
    cut: list[list[int]] = []
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        cut += [encoding.ids[start : start + width] for start in range(0, len(encoding.ids), width)]
    tokens = np.full((len(cut), n_positions), PAD, np.int32)
    for row, ids in enumerate(cut):
        tokens[row, : len(ids) + 2] = [CLS, *ids, SEP]
    return tokens


def hide(
    rng: np.random.Generator, tokens: np.ndarray, d_vocab: int, rate: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """What the model sees, and which tokens it must tell.

    Of the tokens to tell, 8 in 10 are [MASK], 1 in 10 is a random token, 1 in 10 stands. Special tokens are never
    among them.

    Args:
      rng: numpy's.
      tokens: int32 [row position].
      d_vocab: size of the vocabulary.
      rate: share of the tokens to tell.

    Returns:
      int32 [row position], and bool [row position].

    >>> tokens = np.array([[CLS, 7, 8, 9, SEP, PAD]], np.int32)
    >>> seen, told = hide(np.random.default_rng(0), tokens, 20, rate=1.0)
    >>> told.tolist(), bool((seen[~told] == tokens[~told]).all())
    ([[False, True, True, True, False, False]], True)
    """
    told = (rng.random(tokens.shape) < rate) & (tokens >= len(SPECIAL))
    kind = rng.random(tokens.shape)
    seen = np.where(told & (kind < 0.8), np.int32(MASK), tokens)
    random_token = rng.integers(len(SPECIAL), d_vocab, tokens.shape, np.int32)
    return np.where(told & (kind >= 0.9), random_token, seen), told
