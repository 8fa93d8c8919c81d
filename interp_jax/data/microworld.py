"""The first microworld: a small word-level language whose every sentence carries its own explanation.

Its sentences become examples without end, token batches for training, and running text. Words and templates are in
`lexicon.py`, its phenomena in `phenomena.py`, and `tasks.py` makes clean and corrupted prompts of them.
"""

from collections.abc import Iterator, Mapping
import itertools
import random
from typing import TYPE_CHECKING

import numpy as np

from interp_jax.data import lexicon as lex
from interp_jax.data.phenomena import PHENOMENA, Example

if TYPE_CHECKING:
    import tokenizers

TOKEN_ID = {word: index for index, word in enumerate(lex.VOCABULARY)}


def examples(rng: random.Random, mixture: Mapping[str, float] | None = None, split: str = "train") -> Iterator[Example]:
    """Examples without end, each of a phenomenon drawn with its weight in the mixture (all the same by default).

    Raises ValueError for a phenomenon that the world does not have.

    >>> next(examples(random.Random(0), {"facts": 1.0})).phenomenon
    'facts'
    """
    mixture = mixture or dict.fromkeys(PHENOMENA, 1.0)
    if unknown := set(mixture) - set(PHENOMENA):
        raise ValueError(f"mixture: no phenomenon {sorted(unknown)}; there are {', '.join(PHENOMENA)}")
    makers = [PHENOMENA[name] for name in mixture]
    cumulative = list(itertools.accumulate(mixture.values()))
    while True:
        yield rng.choices(makers, cum_weights=cumulative)[0](rng, split)


def batch(
    rng: random.Random, shape: tuple[int, int], mixture: Mapping[str, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the language for training: every row is the beginning of a sequence, then sentences, cut at its end.

    Returns tokens int32 [batch position] and determined bool [batch position], which marks the words that the words
    before them determine.

    >>> tokens, determined = batch(random.Random(0), (2, 32))
    >>> tokens.shape, tokens.dtype.name, determined.dtype.name
    ((2, 32), 'int32', 'bool')
    """
    n_rows, n_positions = shape
    tokens = np.full(shape, TOKEN_ID[lex.BOS], np.int32)
    determined = np.zeros(shape, bool)
    stream = examples(rng, mixture)
    for row in range(n_rows):
        column = 1
        while column < n_positions:
            example = next(stream)
            fits = min(len(example.words), n_positions - column)
            tokens[row, column : column + fits] = [TOKEN_ID[word] for word in example.words[:fits]]
            determined[row, [column + index for index in example.determined if index < fits]] = True
            column += fits
    return tokens, determined


def text(seed: int, n: int, n_words: int = 63) -> list[str]:
    """n documents of the world, each of several sentences and at most n_words words.

    >>> text(0, 1, n_words=30)
    ['bitter is the opposite of sweet .']
    """
    stream = examples(random.Random(f"text {seed}"))
    documents = []
    for _ in range(n):
        words: list[str] = []
        while len(words) + len((example := next(stream)).words) <= n_words or not words:
            words += example.words
        documents.append(" ".join(words[:n_words]))
    return documents


def tokenizer() -> "tokenizers.Tokenizer":
    """The world's tokenizer: a token is a word or a punctuation mark, decoded with spaces; encoding puts <bos> first.

    >>> tokenizer().encode("the opposite of hot is").tokens
    ['<bos>', 'the', 'opposite', 'of', 'hot', 'is']
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    built = Tokenizer(models.WordLevel(TOKEN_ID, unk_token=lex.UNK))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single=f"{lex.BOS} $A", pair=f"{lex.BOS} $A $B", special_tokens=[(lex.BOS, TOKEN_ID[lex.BOS])]
    )
    built.add_special_tokens([lex.PAD, lex.BOS, lex.UNK])
    return built
