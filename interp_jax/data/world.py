"""A world: a word-level language with a vocabulary, a few phenomena and a mixture of them to train on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
import itertools
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_jax.data import trees
from interp_jax.data.examples import BOS, PAD, UNK, Example, Phenomenon

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, kw_only=True)
class World:
    """A language whose every sentence carries its own explanation.

    name: of the model that learns it first.
    about: what it is, for the card.
    vocabulary: every word in a fixed order, <pad>, <bos> and <unk> first.
    phenomena: name -> the function that makes its examples.
    mixture: name -> its share of the training data.
    heldout: name -> what its split holds out.
    wanted: name -> the accuracy that its model should reach, 0.95 where nothing is said.
    details: name -> the attributes by which the card tells its accuracy.
    tags, entities: word -> part of speech, and kind of entity for the words that name one.
    alone: in rows and texts every example begins with <bos>, so that nothing before it counts.
    tokenizer_config: what tokenizer_config.json says beside the special tokens.
    """

    name: str
    about: str
    vocabulary: tuple[str, ...]
    phenomena: Mapping[str, Phenomenon]
    mixture: Mapping[str, float]
    heldout: Mapping[str, str]
    wanted: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tags: Mapping[str, str]
    entities: Mapping[str, str]
    alone: bool = False
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def token_id(self) -> dict[str, int]:
        """The id of each word."""
        return {word: index for index, word in enumerate(self.vocabulary)}

    def examples(
        self, rng: random.Random, mixture: Mapping[str, float] | None = None, split: str = "train"
    ) -> Iterator[Example]:
        """Examples without end, each of a phenomenon drawn with its weight in the mixture (all the same by default).

        Raises ValueError for a phenomenon that the world does not have.

        >>> from interp_jax.data import microworld
        >>> next(microworld.WORLD.examples(random.Random(0), {"facts": 1.0})).phenomenon
        'facts'
        """
        mixture = mixture or dict.fromkeys(self.phenomena, 1.0)
        if unknown := set(mixture) - set(self.phenomena):
            raise ValueError(f"mixture: no phenomenon {sorted(unknown)}; there are {', '.join(self.phenomena)}")
        makers = [self.phenomena[name] for name in mixture]
        cumulative = list(itertools.accumulate(mixture.values()))
        while True:
            yield rng.choices(makers, cum_weights=cumulative)[0](rng, split)

    def batch(
        self, rng: random.Random, shape: tuple[int, int], mixture: Mapping[str, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the language for training: <bos>, then sentences one after the other, cut at the row's end.

        Returns tokens int32 [batch position] and determined bool [batch position], which marks the words that the
        words before them determine.

        >>> from interp_jax.data import microworld
        >>> tokens, determined = microworld.WORLD.batch(random.Random(0), (2, 32))
        >>> tokens.shape, tokens.dtype.name, determined.dtype.name
        ((2, 32), 'int32', 'bool')
        """
        n_rows, n_positions = shape
        tokens = np.full(shape, self.token_id[BOS], np.int32)
        determined = np.zeros(shape, bool)
        stream = self.examples(rng, mixture)
        for row in range(n_rows):
            column = 1
            while column < n_positions:
                example = next(stream)
                column += self.alone and column > 1
                fits = min(len(example.words), max(0, n_positions - column))
                tokens[row, column : column + fits] = [self.token_id[word] for word in example.words[:fits]]
                determined[row, [column + index for index in example.determined if index < fits]] = True
                column += fits
        return tokens, determined

    def text(self, seed: int, n: int, n_words: int = 63) -> list[str]:
        """n documents of the world, each of several sentences and at most n_words words.

        >>> from interp_jax.data import microworld
        >>> microworld.WORLD.text(0, 1, n_words=30)
        ['bitter is the opposite of sweet .']
        """
        stream = self.examples(random.Random(f"text {seed}"))
        documents = []
        for _ in range(n):
            words: list[str] = []
            while len(words) + len((example := next(stream)).words) <= n_words or not words:
                words += [BOS] * (self.alone and len(words) > 0) + list(example.words)
            documents.append(" ".join(words[:n_words]))
        return documents

    def labels(self, example: Example) -> trees.Labels:
        """Parts of speech, constituents, roles, entities and coreference of an example.

        >>> from interp_jax.data import microworld
        >>> example = microworld.WORLD.phenomena["ioi"](random.Random(0))
        >>> labels = microworld.WORLD.labels(example)
        >>> [" ".join(example.words[a.start : a.stop]) for _, a in labels.roles if a.label == "recipient"]
        ['to Rose']
        """
        return trees.label(example.tree, example.words, self.tags, self.entities)

    def tokenizer(self) -> "tokenizers.Tokenizer":
        """A token is a word or a punctuation mark, decoded with spaces; encoding puts <bos> first.

        >>> from interp_jax.data import microworld
        >>> microworld.WORLD.tokenizer().encode("the opposite of hot is").tokens
        ['<bos>', 'the', 'opposite', 'of', 'hot', 'is']
        """
        from tokenizers import Tokenizer, models, pre_tokenizers, processors

        built = Tokenizer(models.WordLevel(self.token_id, unk_token=UNK))
        built.pre_tokenizer = pre_tokenizers.Whitespace()
        built.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, self.token_id[BOS])]
        )
        built.add_special_tokens([PAD, BOS, UNK, *(w for w in self.vocabulary[3:] if w[0] + w[-1] == "<>")])
        return built


def vocabulary(*texts: str) -> tuple[str, ...]:
    """Every word of the texts and templates once, in their order, after the special tokens.

    >>> vocabulary("the key", "(NP the {thing}")
    ('<pad>', '<bos>', '<unk>', 'the', 'key')
    """
    words = [word for text in texts for word in trees.plain(text).split() if not word.startswith("{")]
    return (PAD, BOS, UNK, *dict.fromkeys(words))
