"""The generator: what every example promises."""

from collections import Counter
import itertools
import random

import numpy as np
import pytest

from interp_jax.data import lexicon, microworld
from interp_jax.data.examples import BOS, UNK
from interp_jax.data.phenomena import PHENOMENA, Example

# The slots in which an example and its twin differ.
CHANGED = {
    "ioi": {"s2"},
    "facts": {"subject"},
    "agreement": {"subject"},
    "sentiment": {"adj1", "adj2"},
    "opposites": {"word"},
    "binding": {"object", "object_other"},
    "repeated": {"source"},
}


def draw(phenomenon: str, split: str, n: int = 300, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    return [PHENOMENA[phenomenon](rng, split) for _ in range(n)]


def combination(example: Example) -> tuple[str, ...]:
    """What the splits hold out."""
    word = {name: example.words[index] for name, index in example.positions.items()}
    match example.phenomenon:
        case "ioi":
            return (*sorted((word["io"], word["s1"])), example.attributes["template"])
        case "facts":
            return tuple(example.attributes[name] for name in ("relation", "subject", "phrasing"))
        case "agreement":
            return word["subject"].removesuffix("s"), word["attractor"].removesuffix("s")
        case "sentiment":
            return tuple(sorted((word["adj1"], word["adj2"])))
        case "opposites":
            return tuple(example.attributes[name] for name in ("language", "answer_language", "word", "template"))
        case "binding":
            return tuple(w for w in example.words[: example.words.index(".")] if w in lexicon.GOODS)
        case _:
            return example.words[: example.words.index(";")]


@pytest.mark.parametrize("phenomenon", PHENOMENA)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_an_example_keeps_its_promises(phenomenon: str, split: str) -> None:
    for example in draw(phenomenon, split):
        assert example.phenomenon == phenomenon
        assert set(example.words) | set(example.corrupted) <= set(lexicon.VOCABULARY)
        end = example.positions["end"]
        assert example.words[end + 1] == example.answer != example.distractor
        assert end + 1 in example.determined
        assert len(example.corrupted) == len(example.prompt) == end + 1
        at = {index for index, (a, b) in enumerate(zip(example.prompt, example.corrupted, strict=True)) if a != b}
        allowed = {example.words[example.positions[name]] for name in CHANGED[phenomenon]}
        assert at and {example.words[index] for index in at} <= allowed
        assert example.positions[min(CHANGED[phenomenon])] in at


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_splits_share_words_but_no_combination(phenomenon: str) -> None:
    train, heldout = draw(phenomenon, "train", 2000), draw(phenomenon, "heldout", 500)
    assert not {combination(example) for example in train} & {combination(example) for example in heldout}
    if phenomenon != "repeated":  # its halves are random words: a few never come up
        seen = {word for example in train for word in example.words}
        assert {word for example in heldout for word in example.words} <= seen


def test_every_fact_is_known_by_three_phrasings() -> None:
    known = {combination(example): example.attributes for example in draw("facts", "train", 20000)}
    facts = Counter((attributes["relation"], attributes["subject"]) for attributes in known.values())
    assert set(facts.values()) == {3}
    assert len(facts) == sum(map(len, lexicon.FACTS.values()))


def test_the_twin_of_a_binding_is_a_sentence_with_the_other_answer() -> None:
    for example in draw("binding", "train"):
        corrupted = {name: example.corrupted[index] for name, index in example.positions.items()}
        assert corrupted["object"] == example.distractor
        assert corrupted["query"] == example.words[example.positions["box"]]


def test_examples_depend_on_the_seed_alone() -> None:
    first, again, other = (list(itertools.islice(microworld.examples(random.Random(s)), 50)) for s in (1, 1, 2))
    assert first == again != other
    assert microworld.text(3, 4) == microworld.text(3, 4) != microworld.text(4, 4)


def test_the_mixture_is_kept() -> None:
    stream = microworld.examples(random.Random(0), {"facts": 3.0, "ioi": 1.0})
    counts = Counter(example.phenomenon for example in itertools.islice(stream, 4000))
    assert set(counts) == {"facts", "ioi"} and 2800 < counts["facts"] < 3200
    with pytest.raises(ValueError, match="no phenomenon.*fact.*there are ioi"):
        next(microworld.examples(random.Random(0), {"fact": 1.0}))


def test_a_batch_is_rows_of_sentences_after_bos() -> None:
    tokens, determined = microworld.batch(random.Random(0), (16, 40))
    assert tokens.shape == determined.shape == (16, 40)
    assert (tokens[:, 0] == microworld.TOKEN_ID[BOS]).all()
    assert (tokens[:, 1:] > microworld.TOKEN_ID[UNK]).all() and tokens.max() < len(lexicon.VOCABULARY)
    assert 0.05 < np.mean(determined) < 0.5


def test_text_is_what_the_tokenizer_reads() -> None:
    tokenizer = microworld.tokenizer()
    for document in microworld.text(0, 20, n_words=40):
        encoding = tokenizer.encode(document)
        assert encoding.tokens == [BOS, *document.split()]
        assert tokenizer.decode(encoding.ids) == document
        assert len(encoding.ids) <= 41


def test_the_vocabulary_is_small() -> None:
    assert len(lexicon.VOCABULARY) == len(set(lexicon.VOCABULARY)) <= 2000
