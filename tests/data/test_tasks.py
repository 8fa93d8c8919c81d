"""Tasks: aligned prompts, and one line for what cannot be made."""

from functools import partial

import jax
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.data import WORLDS, bindings, graphs, tasks
from interp_jax.interventions import at, replace


@pytest.fixture(scope="module")
def tokenizer() -> models.Tokenizer:
    return models.load("microworld")[1]


def of_world(name: str) -> models.Tokenizer:
    world = WORLDS[name]
    special = {"bos_token": "<bos>", "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": True}
    return models.Tokenizer(world.tokenizer(), special)


EVERY = [(world, name) for world, of in tasks.OF_WORLD.items() for name in of]


@pytest.mark.parametrize(("world", "name"), EVERY, ids=[name for _, name in EVERY])
def test_clean_and_corrupted_are_aligned(world: str, name: str) -> None:
    assert getattr(tasks, name) is tasks.OF_WORLD[world][name]
    tokenizer = of_world(world)
    task = tasks.OF_WORLD[world][name](jax.random.key(0), tokenizer, n=20)
    assert task.clean.shape == task.corrupted.shape == task.mask.shape
    assert {x.dtype for x in (task.clean, task.corrupted, task.last, task.answers, task.distractors)} == {
        np.dtype("int32")
    }
    assert (np.asarray(task.last) == task.clean.shape[1] - 1).all()
    assert {values.shape for values in task.attributes.values()} == {(20,)}
    clean, corrupted, masks, at, answers = map(
        np.asarray, (task.clean, task.corrupted, task.mask, task.last, task.answers)
    )
    columns = np.array(list(task.columns.values()))
    for row, mask in enumerate(masks):
        start = int(mask.argmax())
        assert mask[start:].all()
        assert clean[row, start] == corrupted[row, start] == tokenizer.bos_id
        assert (clean[row, :start] == tokenizer.pad_id).all()
        assert not np.isin([tokenizer.unk_id, tokenizer.pad_id], clean[row, start:]).any()
        assert (clean[row] != corrupted[row]).any()
        assert (start < columns[:, row]).all() and (columns[:, row] <= at[row]).all()
    assert (answers != np.asarray(task.distractors)).all()
    assert (task.columns["end"] == task.last).all()
    assert (task.positions["end"] == task.mask.sum(-1) - 1).all()
    assert (task.accepted[:, 0] == task.answers).all()
    assert not (task.accepted == task.distractors[:, None]).any()


@pytest.mark.parametrize(
    ("make", "world", "size", "message"),
    [
        (tasks.binding, "microworld", {"n_boxes": 1}, "n_boxes=1: give at least 2 and at most 20"),
        (tasks.binding, "microworld", {"n_boxes": 0}, "n_boxes=0"),
        (tasks.owners, "microworld-context", {"n_people": 1}, "n_people=1: give at least 2 and at most 12"),
        (tasks.walks, "microworld-context", {"length": 2}, "length=2: give at least 3"),
        (tasks.in_context, "microworld-context", {"n_shown": -1}, "n_shown=-1: give at least 0"),
        (tasks.persona, "microworld-chat", {"n_turns": 0}, "n_turns=0: give at least 1"),
        (graphs.walks, "microworld-context", {"length": 0}, "length=0: give at least 1"),
        (graphs.walks, "microworld-context", {"n": 0}, "n=0: give at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, world: str, size: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(jax.random.key(0), of_world(world), **size)


@pytest.mark.parametrize(
    ("make", "world", "size"),
    [
        (tasks.binding, "microworld", {"n_boxes": 20}),
        (tasks.owners, "microworld-context", {"n_people": 12}),
        (tasks.walks, "microworld-context", {"length": 3}),
        (tasks.in_context, "microworld-context", {"n_shown": 34}),
    ],
)
def test_the_largest_and_the_least_can_be_made(make, world: str, size: dict[str, int]) -> None:
    assert make(jax.random.key(0), of_world(world), n=3, **size).clean.shape[0] == 3


def test_the_twin_of_ioi_differs_at_s2_alone(tokenizer: models.Tokenizer) -> None:
    task = tasks.ioi(jax.random.key(1), tokenizer, n=32)
    rows, columns = np.nonzero(np.asarray(task.clean != task.corrupted))
    assert rows.tolist() == list(range(32)) and (columns == np.asarray(task.columns["s2"])).all()
    word = lambda name: task.clean[np.arange(32), task.columns[name]]  # noqa: E731
    assert (word("io") == task.answers).all() and (word("s1") == task.distractors).all()


def test_an_edit_at_a_named_word(tokenizer: models.Tokenizer) -> None:
    """Under padding too: the twins differ at s2 alone, so its clean embedding there makes the clean run."""
    model, _ = models.load("microworld")
    task = tasks.ioi(jax.random.key(1), tokenizer, n=16)
    assert not task.mask.all()
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    clean, acts = ij.capture(f, "embed")(model, task.clean)
    edit = at(replace(acts["embed"]), position=task.positions["s2"])
    np.testing.assert_array_equal(ij.intervene(f, {"embed": edit})(model, task.corrupted), clean)


def test_attributes_choose_examples(tokenizer: models.Tokenizer) -> None:
    task = tasks.ioi(jax.random.key(0), tokenizer, n=8, order="BABA", template=0)
    assert task.mask.all() and (task.positions["s1"] < task.positions["io"]).all()
    assert len(set(map(int, task.positions["s2"]))) == 1
    four = tasks.binding(jax.random.key(0), tokenizer, n=4, n_boxes=4)
    assert {"object", "object_other", "object_2", "object_3"} <= set(four.positions)


def test_a_task_depends_on_its_key_alone_and_is_a_pytree(tokenizer: models.Tokenizer) -> None:
    first, again, other = (tasks.facts(jax.random.key(k), tokenizer, n=16) for k in (0, 0, 1))
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert one.tolist() == two.tolist()
    assert first.clean.tolist() != other.clean.tolist()
    assert jax.jit(lambda task: task.answers - task.distractors)(first).shape == (16,)


def test_what_cannot_be_made_says_so_in_one_line(tokenizer: models.Tokenizer) -> None:
    with pytest.raises(ValueError, match="^ioi: no attribute colour; there are order, template"):
        tasks.ioi(jax.random.key(0), tokenizer, colour="red")
    with pytest.raises(ValueError, match="^ioi: none of .* examples has"):
        tasks.ioi(jax.random.key(0), tokenizer, order="ABAB")
    with pytest.raises(ValueError, match="^split is 'train' or 'heldout', not 'test'"):
        tasks.ioi(jax.random.key(0), tokenizer, split="test")


def test_words_of_another_tokenizer_are_single_tokens_or_it_says_so(real_data) -> None:
    gpt2 = models.Tokenizer.from_folder(real_data / "gpt2-tokenizer")
    task = tasks.ioi(jax.random.key(0), gpt2, n=8)
    text = gpt2.decode(task.clean[0][task.mask[0]])
    assert " gave " in text or " to" in text
    assert text.split()[-1] == "to" and gpt2.decode(task.answers[:1]).strip() in text
    letters = models.Tokenizer.from_folder(real_data / "stories260K")
    with pytest.raises(ValueError, match="not one token a word in this tokenizer; use that of models.load"):
        tasks.facts(jax.random.key(0), letters, n=4)


def test_attributes_are_told_and_choose() -> None:
    task = tasks.user(jax.random.key(0), of_world("microworld-chat"), n=40, asked="age")
    assert set(task.attributes["asked"]) == {"age"} and set(task.attributes["age"]) == {"child", "adult", "elder"}
    assert {"unknown", "female", "male"} == set(task.attributes["gender"])
    assert jax.tree.unflatten(jax.tree.structure(task), jax.tree.leaves(task)).attributes == {}


def test_the_options_of_tasks() -> None:
    context, chat = of_world("microworld-context"), of_world("microworld-chat")
    shots = tasks.in_context(jax.random.key(0), context, n=8, n_shown=2, task="french")
    assert set(shots.attributes["task"]) == {"french"} and {"x_2", "y_2"} <= set(shots.positions)
    alone = tasks.in_context(jax.random.key(0), context, n=8, n_shown=0, task="plural")
    assert alone.clean.shape == (8, 3) and (alone.clean[:, 1] != alone.corrupted[:, 1]).all()
    assert tasks.persona(jax.random.key(0), chat, n=2, n_turns=6).attributes["n_turns"].tolist() == ["6", "6"]
    assert "name_6" in tasks.owners(jax.random.key(0), context, n=2, n_people=7).positions


@pytest.mark.parametrize("graph", ["ring", "grid"])
def test_walks_step_between_neighbours(graph: str) -> None:
    tokenizer = of_world("microworld-context")
    batch = graphs.walks(jax.random.key(0), tokenizer, n=5, graph=graph, length=30)
    nodes, edges = np.asarray(batch.nodes), np.asarray(batch.adjacency)
    assert (edges == edges.T).all() and (nodes[:, 0] == -1).all() and (batch.tokens[:, 0] == tokenizer.bos_id).all()
    assert edges[nodes[:, 1:-1], nodes[:, 2:]].all()
    assert [batch.words[node] for node in nodes[0, 1:]] == tokenizer.decode(batch.tokens[0, 1:]).split()
    np.testing.assert_array_equal(edges, graphs.ring(8) if graph == "ring" else graphs.grid(3, 3))
    with pytest.raises(ValueError, match="^walks: no graph 'torus'; there are ring, grid"):
        graphs.walks(jax.random.key(0), tokenizer, graph="torus")


def test_walks_on_any_graph() -> None:
    tokenizer = of_world("microworld-context")
    star = np.zeros((4, 4))
    star[0, 1:] = star[1:, 0] = 1
    batch = graphs.walks(jax.random.key(0), tokenizer, n=3, graph=star, length=20, words=("cat", "hat", "car", "bed"))
    nodes = np.asarray(batch.nodes)[:, 1:]
    assert ((nodes[:, :-1] == 0) != (nodes[:, 1:] == 0)).all() and batch.words[1] == "hat"
    np.testing.assert_array_equal(batch.tokens[:, 1:], np.asarray(batch.ids)[nodes])
    steps = graphs.random_walks(jax.random.key(1), graphs.grid(2, 3), n=400, length=50)
    ends = np.bincount(steps[:, -1], minlength=6) / 400  # in the long run nodes are met as they have neighbours
    np.testing.assert_allclose(ends, graphs.grid(2, 3).sum(1) / graphs.grid(2, 3).sum(), atol=0.1)
    assert (graphs.random_walks(jax.random.key(1), graphs.grid(2, 3), n=2, length=50) == steps[:2]).all()
    apart = np.kron(np.eye(2), graphs.ring(3))
    for graph, words, why in (
        (apart, None, r"the graph is not connected: it has 2 parts, of nodes \[0, 1, 2\] and \[3, 4, 5\]"),
        (np.eye(3), None, "symmetric, zero on its diagonal and nowhere negative"),
        (np.ones((2, 3)), None, r"\[node node\] with two nodes or more, not \[2, 3\]"),
        (star, ("cat", "hat"), "2 words for a graph of 4 nodes: one is wanted for each node"),
        (star, ("cat", "hat", "cat", "bed"), "4 words for a graph of 4 nodes: some of them twice"),
        (star, ("cat", "hat", "car", "armchair bed"), "walks: token_id: 'armchair bed' is not one token"),
        (graphs.grid(20, 20), None, "a graph of 400 nodes and 36 nouns to draw from; give its words="),
    ):
        with pytest.raises(ValueError, match=why):
            graphs.walks(jax.random.key(0), tokenizer, graph=graph, words=words)
    with pytest.raises(ValueError, match="ring: n=2"):
        graphs.ring(2)
    with pytest.raises(ValueError, match="grid: 1 by 1"):
        graphs.grid(1, 1)


def test_contexts_that_cannot_be() -> None:
    tokenizer = of_world("microworld-context")
    fine = dict(words={"entity": ("Anna", "Paul", "Ruth"), "attribute": ("key", "hat", "car")}, question=" . {entity}")
    clause = dict(clause="{entity} {attribute}")
    assert bindings.contexts(jax.random.key(0), tokenizer, n=2, **fine | clause).tokens.shape == (2, 7)
    for changed, why in (
        (dict(clause="{entity} {attribute} {city}"), "contexts: no words for city"),
        (
            dict(clause="{entity} {attribute}", n_pairs=3),
            "3 pairs and a spare one want 4 words each, for attribute, entity",
        ),
        (dict(clause="{entity} {attribute}", slot=2), "slot=2 of n_pairs=2: at least one, of a pair that is there"),
        (dict(clause="{entity} zebra {attribute}"), "has words that this tokenizer does not know"),
    ):
        with pytest.raises(ValueError, match=why):
            bindings.contexts(jax.random.key(0), tokenizer, n=2, **fine | changed)
    longer = fine | {"words": {"entity": ("Anna", "Paul", "Ruth"), "attribute": ("key hat", "hat car", "car bed")}}
    with pytest.raises(ValueError, match=r"'.*' is not one token of this tokenizer where it stands, but \["):
        bindings.contexts(jax.random.key(0), tokenizer, n=2, **longer | clause)
