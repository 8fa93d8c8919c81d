"""Effects of an attribution graph: they add up, agree with perturbations of the held run, and know their controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import graphs, models
from interp_jax.interventions import replace
from tests.graphs.conftest import SETS, TOKENS, D, graph, model

FEATURES = "blocks.mlp_out.features"


def pre_activations(transcoders, read: jax.Array) -> dict[int, np.ndarray]:
    if hasattr(transcoders, "causal"):
        values = transcoders.pre_activations(jnp.moveaxis(read, 0, -2))
        return dict(enumerate(np.moveaxis(np.asarray(values), -2, 0)))
    each = transcoders if isinstance(transcoders, dict) else dict(enumerate(transcoders))
    return {layer: np.asarray(one.pre_activations(read[layer])) for layer, one in each.items()}


def test_edges_add_up(name: str, scanned: bool) -> None:
    """To each feature's pre-activation, and to each logit without the mean of all."""
    f, made = model(scanned=scanned), graph(name, scanned=scanned)
    logits, acts = ij.capture(models.forward, "blocks.mlp_in")(f, TOKENS)
    pre = pre_activations(SETS[name](), acts["blocks.mlp_in"])
    total = np.asarray(made.edges.sum(1)).ravel()
    for node in made.find("feature"):
        want = pre[int(made.layer[node])][made.position[node], made.index[node]]
        assert total[node] == pytest.approx(want, abs=1e-4)
    last = np.asarray(logits[-1])
    for node in made.find("logit"):
        assert total[node] == pytest.approx(last[made.index[node]] - last.mean(), abs=1e-4)
    assert not made.rest.any() and len(made.find("feature")) > 50


def test_transcoders_of_bfloat16_are_what_their_numbers_are() -> None:
    short = [one.cast("bfloat16") for one in SETS["skip"]()]
    made, same = (
        graphs.attribution_graph(models.forward, model(scanned=True), some, TOKENS)
        for some in (short, [one.cast("float32") for one in short])
    )
    assert made.ids == same.ids and abs(made.edges - same.edges).max() < 1e-6


@pytest.mark.long
def test_looped_is_scanned(name: str) -> None:
    one, other = graph(name), graph(name, scanned=True)
    assert one.ids == other.ids and abs(one.edges - other.edges).max() < 1e-4


@pytest.mark.long
@pytest.mark.parametrize("set_of", ["skip", "cross"])
def test_edges_are_perturbations_of_the_held_run(set_of: str) -> None:
    """All features held at their values, one changed: pre-activations and logits move as its edges say."""
    f, transcoders, made = model(scanned=False), SETS[set_of](), graph(set_of)
    held = graphs.hold(models.forward, transcoders)(f, TOKENS)
    g = graphs.replace_mlps(models.forward, transcoders, held)
    _, acts = ij.capture(g, (FEATURES, "blocks.mlp_in"))(f, TOKENS)

    def moved(node: int, size: float) -> tuple[dict[int, jax.Array], jax.Array]:
        values = acts[FEATURES].at[0, made.position[node], made.index[node]].add(size)
        held_up_to = lambda n: {f"blocks.{layer}.mlp_out.features": replace(values[layer]) for layer in range(n)}  # noqa: E731
        read = [ij.capture(ij.intervene(g, held_up_to(n)), f"blocks.{n}.resid_mid")(f, TOKENS)[1] for n in (1, 2)]
        return {n: x[f"blocks.{n}.resid_mid"] for n, x in zip((1, 2), read, strict=True)}, ij.capture(
            ij.intervene(g, held_up_to(3)), "unembed.out", output=False
        )(f, TOKENS)["unembed.out"]

    unembedded = ij.capture(models.forward, "unembed.out")(f, TOKENS)[1]["unembed.out"]
    read = acts["blocks.mlp_in"]
    before = pre_activations(transcoders, read)
    edges = made.edges.toarray()
    sources = [node for node in made.find("feature") if made.layer[node] == 0][::9]
    assert len(sources) > 3
    for node in sources:
        there, out = moved(node, 0.5 * float(made.activation[node]))
        after = pre_activations(transcoders, jnp.stack([read[0], there[1], there[2]]))
        for target in made.find("feature"):
            place = int(made.layer[target]), int(made.position[target]), int(made.index[target])
            change = after[place[0]][place[1:]] - before[place[0]][place[1:]]
            assert edges[target, node] * 0.5 == pytest.approx(change, abs=1e-4)
        out = np.asarray(out[-1] - unembedded[-1])
        for target in made.find("logit"):
            assert edges[target, node] * 0.5 == pytest.approx(out[made.index[target]] - out.mean(), abs=1e-4)


@pytest.mark.long
def test_constants_are_the_run_of_nothing() -> None:
    """The held run without embeddings, features and errors, but for the first position, which counts as constant."""
    f, transcoders, made = model(scanned=False), SETS["per layer"](), graph("per layer")
    held = graphs.hold(models.forward, transcoders)(f, TOKENS)
    run = ij.capture(graphs.replace_mlps(models.forward, transcoders, held), (FEATURES, "blocks.mlp_out"))
    _, acts = run(f, TOKENS)
    first = jnp.arange(5)[:, None] < 1
    errors = {"blocks.mlp_out": jnp.where(first, held.errors["blocks.mlp_out"], 0)}
    nothing = graphs.replace_mlps(models.forward, transcoders, graphs.Held(errors, held.frozen))
    values, read = jnp.where(first, acts[FEATURES], 0), []
    for n in range(3):
        edits = {f"blocks.{layer}.mlp_out.features": replace(values[layer]) for layer in range(n)}
        there = ij.capture(ij.intervene(nothing, {**edits, "embed": lambda x: 0 * x}), f"blocks.{n}.resid_mid")(
            f, TOKENS
        )
        read.append(there[1][f"blocks.{n}.resid_mid"])
    pre = pre_activations(transcoders, jnp.stack(read))
    constant = made.edges.toarray()[:, made.find("constant")[0]]
    for node in made.find("feature"):
        want = pre[int(made.layer[node])][made.position[node], made.index[node]]
        assert constant[node] == pytest.approx(want, abs=1e-4)


@pytest.mark.long
def test_fewer_features_and_edges() -> None:
    """What is left out is told: rows still add up; the features that are kept have the edges that they had."""
    whole = graph("per layer")
    total = np.asarray(whole.edges.sum(1)).ravel()
    place = {name: number for number, name in enumerate(whole.ids)}
    for options in ({"n_features": 20, "chunk": 3}, {"n_edges": 4}):
        made = graphs.attribution_graph(models.forward, model(scanned=False), SETS["per layer"](), TOKENS, **options)
        at = np.array([place[name] for name in made.ids])
        assert np.allclose(np.asarray(made.edges.sum(1)).ravel() + made.rest, total[at], atol=1e-4)
        there, want = made.edges.toarray(), whole.edges.toarray()[np.ix_(at, at)]
        assert np.allclose(np.where(there == 0, want, there), want, atol=1e-5)
    assert (np.diff(made.edges.indptr) <= 5).all()
    few = graphs.attribution_graph(models.forward, model(scanned=False), SETS["per layer"](), TOKENS, n_features=20)
    assert len(few.find("feature")) == 20
    influence = whole.influence()[whole.find("feature")]
    kept = [place[few.ids[node]] for node in few.find("feature")]
    assert influence[kept].sum() > 0.9 * np.sort(influence)[-20:].sum()


@pytest.mark.long
def test_a_long_prompt() -> None:
    """Its rows are as long as they may be, and add up with what is left out (memory: `bench/long_graphs.py`)."""
    config = models.Config(n_layers=3, n_heads=2, d_model=D, d_mlp=32, d_vocab=11, n_ctx=1500, norm="rmsnorm")
    f = models.Decoder.create(jax.random.key(0), config)
    tokens = jax.random.randint(jax.random.key(1), (1500,), 0, 11)
    options = {"n_features": 40, "n_edges": 1000}
    made = graphs.attribution_graph(models.forward, f, SETS["per layer"](), tokens, **options)
    nodes = made.find("feature")
    assert len(nodes) == 40 and (np.diff(made.edges.indptr) <= 1001).all() and made.rest[nodes].all()
    total = np.asarray(made.edges.sum(1)).ravel() + made.rest
    assert total[nodes] == pytest.approx(made.activation[nodes], rel=1e-4, abs=1e-4)


@pytest.mark.long
def test_over_devices() -> None:
    mesh = jax.make_mesh((8,), ("targets",))
    made = graphs.attribution_graph(models.forward, model(scanned=True), SETS["skip"](), TOKENS, mesh=mesh, chunk=8)
    assert abs(made.edges - graph("skip").edges).max() < 1e-4


def test_targets() -> None:
    f, transcoders, whole = model(scanned=False), SETS["per layer"](), graph("per layer")
    node = whole.find("feature", layer=2)[-1]
    place = (2, int(whole.position[node]), int(whole.index[node]))
    direction = np.linspace(-1, 1, D)
    targets = [4, graphs.difference(4, 7), ("line", 2.0, direction), graphs.feature(*place)]
    made = graphs.attribution_graph(models.forward, f, transcoders, TOKENS, targets=targets)
    logits, acts = ij.capture(models.forward, "unembed.in")(f, TOKENS)
    total = dict(zip(made.ids, np.asarray(made.edges.sum(1)).ravel(), strict=True))
    named = {name: made.ids[number] for number, name in made.names.items()}
    assert total[named["4 - 7"]] == pytest.approx(float(logits[-1, 4] - logits[-1, 7]), abs=1e-4)
    assert total[named["line"]] == pytest.approx(float(acts["unembed.in"][-1] @ direction), abs=1e-4)
    assert made.weight[made.find("direction")].tolist() == [1.0, 2.0]
    assert made.weight[made.find("feature", layer=2, position=place[1], index=place[2])].tolist() == [1.0]
    chance = jax.nn.softmax(logits[-1])[4]
    assert made.weight[made.find("logit")] == pytest.approx(float(chance), rel=1e-5)
    alone = graphs.attribution_graph(
        models.forward, f, transcoders, TOKENS, targets=[graphs.feature(*place)], n_features=5
    )
    assert len(alone.find("feature")) == 5 and (alone.weight > 0).sum() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["a"]}, "needs tokenizer="),
        ({"targets": [99]}, "no token 99"),
        ({"targets": [("line", 1.0, np.ones(3))]}, r"shape \[3\]: give \[16\]"),
        ({"targets": [graphs.feature(0, 0, 0)]}, "feature 0 of layer 0 is not active at position 0"),
        ({"targets": []}, "none is given"),
        ({"position": 9}, "the prompt has 5 tokens"),
        ({"n_first": 5}, "no feature is active"),
        ({"n_edges": 0}, "n_edges=0: it must be at least 1"),
        ({"n_features": -1}, "n_features=-1: it must be at least 1"),
        ({"chunk": 0}, "chunk=0: it must be at least 1"),
        ({"n_first": -1}, "n_first=-1: give 0 or more"),
    ],
)
def test_bad_requests(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graphs.attribution_graph(models.forward, model(scanned=False), SETS["per layer"](), TOKENS, **options)


def test_bad_prompts() -> None:
    f, some = model(scanned=False), SETS["per layer"]()
    with pytest.raises(ValueError, match="give one prompt"):
        graphs.attribution_graph(models.forward, f, some, jnp.ones((2, 3), jnp.int32))
    with pytest.raises(ValueError, match="n_ctx"):
        graphs.attribution_graph(models.forward, f, some, jnp.ones(9, jnp.int32))
    with pytest.raises(TypeError, match="targets: a sequence"):
        graphs.attribution_graph(models.forward, f, some, TOKENS, targets="a")
