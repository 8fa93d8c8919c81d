"""What every world promises of every example: words, twins, splits, labels."""

from collections.abc import Iterator
import itertools
import random

import numpy as np
import pytest

from interp_jax import models
from interp_jax.data import WORLDS
from interp_jax.data.examples import BOS, PAD, UNK, Example
from interp_jax.data.trees import UPOS, Labels, Span, label
from interp_jax.data.world import World

PAIRS = [(world, name) for world in WORLDS.values() for name in world.phenomena]
EACH = pytest.mark.parametrize(("world", "name"), PAIRS, ids=[f"{world.name}-{name}" for world, name in PAIRS])


def draw(world: World, name: str, split: str = "train", n: int = 150) -> Iterator[Example]:
    rng = random.Random(f"{name} {split}")
    return (world.phenomena[name](rng, split) for _ in range(n))


@EACH
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_an_example_keeps_its_promises(world: World, name: str, split: str) -> None:
    for example in draw(world, name, split):
        assert example.phenomenon == name
        assert set(example.words) | set(example.corrupted) <= set(world.vocabulary)
        end = example.positions["end"]
        assert example.words[end + 1] == example.answer
        assert example.distractor not in (example.answer, *example.accepted)
        assert len(example.corrupted) == len(example.prompt) == end + 1
        assert example.corrupted != example.prompt
        assert all(0 <= at <= end for at in example.positions.values())
        assert set(example.determined) <= set(range(len(example.words)))


@EACH
def test_the_attributes_are_always_the_same_ones(world: World, name: str) -> None:
    assert len({tuple(example.attributes) for example in draw(world, name)}) == 1
    assert set(world.details.get(name, ())) <= set(next(draw(world, name)).attributes)


@EACH
def test_splits_share_words_but_no_sentence(world: World, name: str) -> None:
    train, heldout = list(draw(world, name, "train", 1000)), list(draw(world, name, "heldout", 100))
    if name != "truth":  # there is one way to ask
        assert not {example.words for example in train} & {example.words for example in heldout}
    if name not in ("truth", "rhymes"):  # one may rhyme with another word
        assert not {example.prompt for example in train} & {example.prompt for example in heldout}
    if name not in ("repeated", "copies"):  # halves are random words: a few never come up
        seen = {word for example in train for word in example.words}
        assert not {word for example in heldout for word in example.words if not word.isdigit()} - seen
    with pytest.raises(ValueError, match="split is 'train' or 'heldout', not 'test'"):
        world.phenomena[name](random.Random(0), "test")


@pytest.mark.parametrize("world", WORLDS.values(), ids=lambda world: world.name)
def test_a_world_is_whole(world: World) -> None:
    assert world.vocabulary[:3] == (PAD, BOS, UNK)
    assert len(set(world.vocabulary)) == len(world.vocabulary) <= 2000
    assert set(world.mixture) <= set(world.phenomena) == set(world.heldout)
    assert set(world.entities) <= set(world.vocabulary)
    used = {word for name in world.phenomena for example in draw(world, name, n=1000) for word in example.words}
    assert not {word for word in world.vocabulary[3:] if not word.isdigit()} - used


@pytest.mark.parametrize("world", WORLDS.values(), ids=lambda world: world.name)
def test_rows_and_text_are_what_the_tokenizer_reads(world: World) -> None:
    tokens, determined = world.batch(random.Random(0), (8, 60), world.mixture)
    assert tokens.shape == determined.shape == (8, 60) and (tokens[:, 0] == world.token_id[BOS]).all()
    assert not np.isin(tokens, [world.token_id[PAD], world.token_id[UNK]]).any() and tokens.max() < len(
        world.vocabulary
    )
    assert not determined[tokens == world.token_id[BOS]].any() and determined.any()
    tokenizer = world.tokenizer()
    for document in world.text(0, 10):
        encoding = tokenizer.encode(document)
        assert encoding.tokens == [BOS, *document.split()]
        assert tokenizer.decode(encoding.ids, skip_special_tokens=False).split() == encoding.tokens


@EACH
def test_labels_are_consistent(world: World, name: str) -> None:
    for split in ("train", "heldout"):
        for example in draw(world, name, split, 25):
            check(world.labels(example), example, world)


def check(labels: Labels, example: Example, world: World) -> None:
    n = len(example.words)
    assert len(labels.pos) == n and set(labels.pos) <= UPOS
    spans = [*labels.constituents, *labels.entities]
    spans += [span for pair in (*labels.roles, *labels.coreference) for span in pair]
    assert all(0 <= span.start < span.stop <= n for span in spans)
    for a, b in itertools.combinations(labels.constituents, 2):  # they nest: no two overlap in part
        assert a.stop <= b.start or b.stop <= a.start or a.start <= b.start < b.stop <= a.stop
    places = {(span.start, span.stop) for span in labels.constituents}
    for verb, argument in labels.roles:
        assert labels.pos[verb.start] in ("VERB", "AUX") and verb.stop == verb.start + 1
        assert (argument.start, argument.stop) in places
        assert not argument.start <= verb.start < argument.stop
    if example.tree:
        assert {e.start for e in labels.entities} == {i for i, w in enumerate(example.words) if w in world.entities}
    for later, earlier in labels.coreference:
        assert earlier.stop <= later.start
        same = example.words[earlier.start] == example.words[later.start]
        assert same or "PRON" in (labels.pos[earlier.start], labels.pos[later.start])


def words(example: Example, span: Span) -> str:
    return " ".join(example.words[span.start : span.stop])


def arguments(world: World, example: Example, role: str) -> list[tuple[str, str]]:
    return [(words(example, v), words(example, a)) for v, a in world.labels(example).roles if a.label == role]


def test_who_gives_what_to_whom() -> None:
    world = WORLDS["microworld"]
    for example in draw(world, "ioi"):
        giver = example.words[example.positions["s2"]]
        verb = arguments(world, example, "recipient")[0][0]
        assert arguments(world, example, "recipient") == [(verb, f"to {example.answer}")]
        assert (verb, giver) in arguments(world, example, "agent")
        assert [what.split()[-1] for v, what in arguments(world, example, "theme") if v == verb] == [
            example.attributes["object"]
        ]


def test_the_subject_of_an_agreement_is_all_that_stands_before_its_verb() -> None:
    world = WORLDS["microworld"]
    for example in draw(world, "agreement"):
        subject = max(arguments(world, example, "theme"), key=lambda pair: len(pair[1]))[1]
        assert subject.split() == list(example.prompt[1:])


@pytest.mark.parametrize(("world", "name"), [("microworld-context", "pronouns"), ("microworld-couplets", "couplets")])
def test_a_pronoun_means_its_name(world: str, name: str) -> None:
    for example in draw(WORLDS[world], name):
        pairs = [(a.start, b.start) for a, b in WORLDS[world].labels(example).coreference]
        assert (example.positions["pronoun"], example.positions["name"]) in pairs


def test_a_tree_that_cannot_be_labelled_says_so() -> None:
    with pytest.raises(ValueError, match="^label: 1 words do not fill the tree"):
        label("(NP the key)", ("the",), {}, {})
    with pytest.raises(ValueError, match="^label: no part of speech for xyz"):
        label("(NP the xyz)", ("the", "xyz"), {"the": "DET"}, {})
    with pytest.raises(ValueError, match="^label: a role in a clause without a verb"):
        label("(S (NP:agent the key))", ("the", "key"), {"the": "DET", "key": "NOUN"}, {})
    with pytest.raises(ValueError, match="its tokens are such as"):
        label("(np the key/noun)", ("the", "key"), {}, {})


def test_the_chat_is_written_as_its_template_writes_it() -> None:
    import jinja2

    world = WORLDS["microworld-chat"]
    example = world.phenomena["persona"](random.Random(3), "train", n_turns=2)
    parts = " ".join(example.prompt).split("<")[1:]
    messages = [dict(zip(("role", "content"), part.split("> ", 1), strict=True)) for part in parts[:-1:2]]
    template = jinja2.Template(world.tokenizer_config["chat_template"])
    text = template.render(
        messages=[{k: v.strip() for k, v in message.items()} for message in messages],
        bos_token=BOS,
        add_generation_prompt=True,
    )
    tokenizer = models.Tokenizer(world.tokenizer(), {"bos_token": BOS})
    assert tokenizer.encode(text, bos=False) == tokenizer.encode(" ".join(example.prompt), bos=True)
