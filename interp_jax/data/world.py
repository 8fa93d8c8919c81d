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
    """A language of whose every sentence the structure and the answer are known.

    Attributes:
      name: its name, and that of the model that is trained on it.
      about: what it is, in a line of the model's card.
      vocabulary: every word in a fixed order, <pad>, <bos> and <unk> first.
      phenomena: name -> the function that makes its examples.
      mixture: name -> its weight in the training data, beside the others'.
      heldout: name -> what its held-out split holds out, in words, for the card.
      wanted: name -> the accuracy that the model should reach, 0.95 where nothing is said.
      details: name -> the attributes by which the card tells the accuracy.
      tags: word -> its usual part of speech.
      entities: word -> its kind of entity, for the words that name one.
      alone: whether every example in rows and texts begins with <bos>, so that nothing before it matters.
      tokenizer_config: what tokenizer_config.json has beside the special tokens.
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
        """Draws examples without end.

        Args:
          rng: a random generator of Python.
          mixture: name of a phenomenon -> its weight; by default the same for each, not the world's own mixture.
          split: "train" or "heldout".

        Raises:
          ValueError: the world does not have such a phenomenon or split.

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
        """Draws rows for training: <bos>, then sentences one after the other, cut at the row's end.

        Args:
          rng: a random generator of Python.
          shape: numbers of rows and of words in a row, <bos> among them.
          mixture: as in `examples`.

        Returns:
          Tokens, int32 `[batch position]`, and whether a word follows from the words before it, bool
          `[batch position]`.

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
        """Draws n documents, each of as many sentences as n_words words hold, or of one that is cut there.

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
        """The parts of speech, constituents, roles, entities and coreference of an example.

        >>> from interp_jax.data import microworld
        >>> example = microworld.WORLD.phenomena["ioi"](random.Random(0))
        >>> labels = microworld.WORLD.labels(example)
        >>> [" ".join(example.words[a.start : a.stop]) for _, a in labels.roles if a.label == "recipient"]
        ['to Rose']
        """
        return trees.label(example.tree, example.words, self.tags, self.entities)

    def tokenizer(self) -> "tokenizers.Tokenizer":
        """The tokenizer of the world: a token is a word or a punctuation mark, and <bos> stands first.

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
    """Every word of the texts and templates once, in the order in which they come up, after the special tokens.

    >>> vocabulary("the key", "(NP the {thing}")
    ('<pad>', '<bos>', '<unk>', 'the', 'key')
    """
    words = [word for text in texts for word in trees.plain(text).split() if not word.startswith("{")]
    return (PAD, BOS, UNK, *dict.fromkeys(words))
