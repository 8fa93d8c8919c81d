"""Circuits: each metric against a run by hand, the identities that hold, and sweeps by leading axes and by vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import circuits, metrics, models, patching
from tests.patching.by_hand import run

LAYERS, HEADS = 2, 2
ENDS = jnp.array([5, 5, 5])
METRIC = metrics.logit_diff(jnp.array([1, 2, 3]), jnp.array([4, 5, 6]))
CIRCUIT = circuits.Circuit(heads=jnp.array([[True, False], [False, True]]), mlps=jnp.array([False, True]))


def last(model, tokens):
    return models.forward(model, tokens, logits_at=ENDS)


@pytest.fixture(scope="module")
def setting(tiny):
    """A scanned model, clean and corrupted tokens."""
    return models.stack_layers(tiny.model), tiny.clean, tiny.corrupted


def by_hand(setting, circuit, ablation):
    """The mean metric of a circuit, everything outside it replaced one by one."""
    model, clean, corrupted = setting
    w = models.weights(model)
    inside = {("z", *index): kept for index, kept in np.ndenumerate(circuit.heads)}
    inside |= {("mlp_out", layer): kept for (layer,), kept in np.ndenumerate(circuit.mlps)}
    theirs = run(w, corrupted)[1]
    values = {
        "resample": lambda x: x,
        "mean": lambda x: np.broadcast_to(x.mean(0), x.shape),
        "zero": np.zeros_like,
    }[ablation]
    given = {key: values(theirs[key]) for key, kept in inside.items() if not kept}
    return float(METRIC(jnp.asarray(run(w, clean, given)[0][:, -1])).mean())


def nothing(circuit):
    return circuit & ~circuit


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_faithfulness_by_hand(setting, ablation) -> None:
    several = jax.tree.map(lambda *x: jnp.stack(x), CIRCUIT, ~CIRCUIT, CIRCUIT | ~CIRCUIT, nothing(CIRCUIT))
    found = circuits.faithfulness(last, METRIC, ablation, chunk=3)(*setting, several)
    wanted = [by_hand(setting, jax.tree.map(lambda x, i=i: x[i], several), ablation) for i in range(4)]
    np.testing.assert_allclose(found.circuit, wanted, atol=2e-5)
    np.testing.assert_allclose([found.model, found.empty], wanted[2:], atol=2e-5)
    share = (np.array(wanted) - wanted[3]) / (wanted[2] - wanted[3])
    np.testing.assert_allclose(found.share, share, atol=1e-4)
    np.testing.assert_allclose(found.share[2:], [1, 0], atol=1e-5)


@pytest.mark.long
def test_values_of_ones_own_and_layers_in_a_loop(setting) -> None:
    import interp_jax as ij

    model, clean, corrupted = setting
    sites = ["blocks.attn.z", "blocks.mlp_out"]
    values = {
        name: x.mean(1, keepdims=True) for name, x in ij.capture(last, sites, output=False)(model, corrupted).items()
    }
    own = circuits.faithfulness(last, METRIC, values)(models.unstack_layers(model), clean, corrupted, CIRCUIT)
    mean = circuits.faithfulness(last, METRIC, "mean")(*setting, CIRCUIT)
    np.testing.assert_allclose(own.share, mean.share, atol=1e-4)


def test_completeness_by_hand(setting) -> None:
    removed = CIRCUIT.random(jax.random.key(0), 3) | nothing(CIRCUIT)
    removed = jax.tree.map(lambda some, whole: jnp.concatenate([some, whole[None]]), removed, CIRCUIT)
    assert len(set(removed.size.tolist())) > 1
    found = circuits.completeness(last, METRIC)(*setting, CIRCUIT, removed)
    for i in range(4):
        part = jax.tree.map(lambda x, i=i: x[i], removed)
        np.testing.assert_allclose(found.circuit[i], by_hand(setting, CIRCUIT & ~part, "resample"), atol=2e-5)
        np.testing.assert_allclose(found.model[i], by_hand(setting, ~part, "resample"), atol=2e-5)
    np.testing.assert_allclose(found.gap, np.abs(found.circuit - found.model))


@pytest.mark.long
def test_the_greedy_removal_is_the_best_at_each_step(setting) -> None:
    removed, found = circuits.greedy_removal(last, METRIC, 4)(*setting, CIRCUIT)
    assert removed.size.tolist() == [1, 2, 3, 3]  # three members are all there are
    assert not (removed & ~CIRCUIT).size.any()
    g, before = circuits.completeness(last, METRIC), nothing(CIRCUIT)
    for i in range(3):
        chosen = jax.tree.map(lambda x, i=i: x[i], removed)
        assert (before & ~chosen).size == 0
        members = CIRCUIT.singles() & CIRCUIT & ~before
        gaps = g(*setting, CIRCUIT, members | before).gap
        np.testing.assert_allclose(found.gap[i], gaps[members.size > 0].max(), atol=2e-5)
        np.testing.assert_allclose(g(*setting, CIRCUIT, chosen).gap, found.gap[i], atol=2e-5)
        before = chosen
    np.testing.assert_allclose(found.gap[3], found.gap[2], atol=2e-5)


def test_minimality_is_what_is_lost_without_each(setting) -> None:
    found = circuits.minimality(last, METRIC)(*setting, CIRCUIT)
    full, empty = (by_hand(setting, c, "resample") for c in (CIRCUIT | ~CIRCUIT, nothing(CIRCUIT)))
    whole = by_hand(setting, CIRCUIT, "resample")
    without = circuits.Circuit(CIRCUIT.heads.at[1, 1].set(False), CIRCUIT.mlps)
    lost = (whole - by_hand(setting, without, "resample")) / (full - empty)
    np.testing.assert_allclose(found.heads, [[found.heads[0, 0], 0], [0, lost]], atol=1e-4)
    without = circuits.Circuit(CIRCUIT.heads, CIRCUIT.mlps.at[1].set(False))
    lost = (whole - by_hand(setting, without, "resample")) / (full - empty)
    np.testing.assert_allclose(found.mlps, [0, lost], atol=1e-4)
    assert found.heads[0, 0] != 0


@pytest.mark.long
def test_a_sweep_is_a_vmap_and_another_circuit_no_other_compilation(setting) -> None:
    traced = 0

    def counted(model, tokens):
        nonlocal traced
        traced += 1
        return last(model, tokens)

    g = circuits.faithfulness(counted, METRIC)
    nested = circuits.Circuit.top(jnp.array([[4.0, 1.0], [2.0, 3.0]]), jnp.array([0.0, 5.0]), jnp.array([1, 3, 6]))
    assert nested.size.tolist() == [1, 3, 6]
    assert nested.heads[1].tolist() == [[True, False], [False, True]]
    swept, before = g(*setting, nested), traced
    g(*setting, ~nested)
    assert traced == before
    mapped = jax.vmap(g, (None, None, None, 0))(*setting, nested)
    np.testing.assert_allclose(mapped.share, swept.share, atol=1e-5)
    np.testing.assert_allclose(jax.jit(g)(*setting, nested).share, swept.share, atol=1e-5)


@pytest.mark.long
def test_key_value_heads_in_bfloat16() -> None:
    config = models.Config(
        n_layers=2, n_heads=4, n_kv_heads=2, d_model=16, d_mlp=12, d_vocab=23, n_ctx=8, gated=True, act="silu",
        norm="rmsnorm", positions="rotary", attn_bias=False, mlp_bias=False,
    )  # fmt: skip
    model = jax.tree.map(lambda x: x * 8, models.Decoder.create(jax.random.key(0), config))
    half = models.stack_layers(jax.tree.map(lambda x: x.astype(jnp.bfloat16), model))
    pair = jax.random.randint(jax.random.key(1), (2, 3, 6), 0, 23)
    circuit = circuits.Circuit.top(jax.random.normal(jax.random.key(2), (2, 4)), jnp.zeros(2), 5)
    exact, rough = (circuits.faithfulness(last, METRIC)(m, *pair, circuit) for m in (model, half))
    assert rough.share.dtype == jnp.float32
    largest = float(jnp.abs(last(model, pair[0])).max())
    np.testing.assert_allclose(rough.circuit, exact.circuit, atol=2**-6 * largest)


@pytest.mark.long
def test_what_attribution_ranks_first_does_the_microworlds_work(microworld) -> None:
    f, metric, model, clean, corrupted = microworld
    args = model, clean, corrupted
    heads, mlps = (
        jnp.abs(patching.attribution_patch(f, metric, where, over)(*args))
        for where, over in (("blocks.attn.z", ("layer", "head")), ("blocks.mlp_out", "layer"))
    )
    best, worst = (circuits.Circuit.top(sign * heads, sign * mlps, 10) for sign in (1, -1))
    both = jax.tree.map(lambda *x: jnp.stack(x), best, worst)
    share = circuits.faithfulness(f, metric)(*args, both).share
    assert share[0] > 0.5 > share[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ablation": "ones"}, "ablation='ones' is none of 'resample', 'mean', 'zero', nor a mapping"),
        (
            {"ablation": {"blocks.attn.z": 0.0}},
            "wants those of 'blocks.attn.z', 'blocks.mlp_out', not of 'blocks.attn.z'",
        ),
        ({"chunk": 0}, "chunk=0"),
        (
            {"circuit": circuits.Circuit(CIRCUIT.heads[:1], CIRCUIT.mlps)},
            r"circuit.heads is bool\[1, 2\], .* bool\[2, 2\]",
        ),
        ({"circuit": circuits.Circuit(CIRCUIT.heads, jnp.ones(2))}, r"circuit.mlps is float32\[2\]"),
        ({"circuit": circuits.Circuit(CIRCUIT.heads[None], CIRCUIT.mlps)}, "different leading axes"),
        ({"circuit": CIRCUIT.heads}, r"the circuit must be a circuits.Circuit or"),
        ({"clean": jnp.zeros((3, 5), int)}, "give pairs of the same length"),
        (
            {"metric": lambda logits: 0 * logits[:, 0]},
            "the whole model and the empty circuit both score 0, so there is",
        ),
    ],
)
def test_bad_input_is_one_line(setting, change, message) -> None:
    model, clean, corrupted = setting
    clean, circuit = change.pop("clean", clean), change.pop("circuit", CIRCUIT)
    options = {"metric": METRIC} | change
    with pytest.raises(ValueError, match=message) as error:
        circuits.faithfulness(last, **options)(model, clean, corrupted, circuit)
    assert "\n" not in str(error.value)


def test_more_bad_input(setting) -> None:
    with pytest.raises(ValueError, match="n=0: it must be at least 1"):
        circuits.greedy_removal(last, METRIC, 0)
    many = CIRCUIT.random(jax.random.key(0), 3)
    with pytest.raises(ValueError, match=r"minimality: wants one circuit, got \[3\] of them"):
        circuits.minimality(last, METRIC)(*setting, many)
    with pytest.raises(ValueError, match="Circuit.top: heads of 3 layers, mlps of 2"):
        circuits.Circuit.top(jnp.ones((3, 2)), jnp.ones(2), 1)
    with pytest.raises(ValueError, match="removed must be a circuit of the same kind"):
        circuits.completeness(last, METRIC)(*setting, CIRCUIT, circuits.Circuit(jnp.ones((1, 2), bool), CIRCUIT.mlps))


def test_no_share_of_nothing_is_nan_under_jit(setting) -> None:
    g = circuits.faithfulness(last, lambda logits: 0 * logits[:, 0])
    assert np.isnan(jax.jit(g)(*setting, CIRCUIT).share)
