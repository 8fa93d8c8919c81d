"""Sweeps against one run a place, by both plans, on looped and scanned models, jitted, in bfloat16, on a mesh."""

from functools import partial
import itertools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, patching
from interp_jax.interventions import at, mean_ablate, replace, zero
from interp_jax.patching import grid

SIZES = {"layer": 2, "position": 6, "head": 2}


def one_by_one(s, where, over):
    """The map by one forward pass a place."""
    values = ij.capture(s.f, where, output=False)(s.model, s.clean)[where]
    out = np.zeros([SIZES[axis] for axis in over] + [3])
    for index in itertools.product(*(range(SIZES[axis]) for axis in over)):
        edit = at(replace(values), **dict(zip(over, index, strict=True)))
        out[index] = s.metric(ij.intervene(s.f, {where: edit})(s.model, s.corrupted))
    return out


@pytest.mark.parametrize(
    ("where", "over", "plan", "scanned"),
    [
        pytest.param("blocks.resid_pre", ("layer", "position"), "static", True, marks=pytest.mark.long),
        ("blocks.attn.z", ("head", "position", "layer"), "data", False),
        ("blocks.attn.result", ("layer", "head"), "data", True),
        ("blocks.mlp_out", ("position",), None, True),  # all layers at once
    ],
)
def test_the_map_is_one_run_a_place(tiny, where, over, plan, scanned) -> None:
    expected = np.moveaxis(one_by_one(tiny, where, over), -1, 0)
    model = models.stack_layers(tiny.model) if scanned else tiny.model
    over = ("batch", *over)
    g = patching.activation_patch(tiny.f, tiny.metric, where, over, plan=plan, chunk=5)  # which divides nothing here
    np.testing.assert_allclose(g(model, tiny.clean, tiny.corrupted), expected, atol=1e-5)


def test_a_single_sequence(tiny) -> None:
    clean, corrupted = tiny.clean[1], tiny.corrupted[1]
    f, metric = (lambda m, t: models.forward(m, t)[-1]), lambda logits: logits[1] - logits[2]
    effects = patching.activation_patch(f, metric, "blocks.0.resid_pre", "position")(tiny.model, clean, corrupted)
    np.testing.assert_allclose(effects[3], metric(f(tiny.model, corrupted.at[3].set(clean[3]))), atol=1e-5)


def test_any_named_axis(tiny) -> None:
    effects = patching.activation_patch(tiny.f, tiny.metric, "blocks.1.mlp.post", ("d_mlp",))(*tiny[2:])
    post = ij.capture(tiny.f, "blocks.1.mlp.post", output=False)(tiny.model, tiny.clean)["blocks.1.mlp.post"]
    edit = at(replace(post), axis=-1, index=7)
    want = tiny.metric(ij.intervene(tiny.f, {"blocks.1.mlp.post": edit})(tiny.model, tiny.corrupted)).mean()
    assert effects.shape == (12,)
    np.testing.assert_allclose(effects[7], want, atol=1e-5)


def test_the_last_residual_at_the_last_position_is_the_clean_run(microworld) -> None:
    effects = patching.activation_patch(microworld.f, microworld.metric, "blocks.3.resid_post", "position")
    runs = microworld.clean, microworld.corrupted
    clean, corrupted = (microworld.metric(microworld.f(microworld.model, tokens)).mean() for tokens in runs)
    np.testing.assert_allclose(effects(*microworld[2:]), [corrupted] * 14 + [clean], rtol=1e-4)


def test_under_jit_and_for_another_task_nothing_is_compiled_again(tiny) -> None:
    traced = 0

    def counted(model, tokens, **kwargs):
        nonlocal traced
        traced += 1
        return models.forward(model, tokens, **kwargs)

    def effects(answers, **kwargs):
        metric = metrics.logit_diff(answers, jnp.array([9, 9, 9]))
        return patching.activation_patch(partial(counted, **kwargs), metric, "blocks.resid_pre", "layer", plan="data")(
            *tiny[2:]
        )

    ends = jnp.array([5, 5, 5])
    eager, before = effects(jnp.array([1, 2, 3]), logits_at=ends), traced
    effects(jnp.array([4, 5, 6]), logits_at=ends - 1)
    assert traced == before
    jitted = jax.jit(lambda ends: effects(jnp.array([1, 2, 3]), logits_at=ends))(ends)
    np.testing.assert_allclose(eager, jitted, atol=1e-5)


@pytest.mark.long
def test_bfloat16(tiny) -> None:
    g = patching.activation_patch(tiny.f, tiny.metric, "blocks.attn.z", ("layer", "head"), plan="data")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.model)
    exact, rough = (g(model, tiny.clean, tiny.corrupted) for model in (tiny.model, half))
    assert rough.dtype == jnp.float32
    largest = float(jnp.abs(tiny.f(tiny.model, tiny.corrupted)).max())
    np.testing.assert_allclose(rough, exact, atol=2**-6 * largest)  # four units of bfloat16's last place


def test_a_sharded_batch(tiny) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    clean, corrupted = jax.random.randint(jax.random.key(0), (2, 16, 6), 0, 37)

    def f(model, tokens):
        return models.forward(model, tokens)[:, -1]

    g = patching.activation_patch(f, lambda x: x[:, 20], "blocks.resid_pre", ("layer", "batch"), plan="data", chunk=2)
    expected = g(tiny.model, clean, corrupted)
    rows, everywhere = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    model, pair = jax.device_put(tiny.model, everywhere), jax.device_put((clean, corrupted), rows)
    np.testing.assert_allclose(g(model, *pair), expected, atol=1e-5)


def test_mean_ablation(tiny) -> None:
    mean = ij.capture(tiny.f, "blocks.attn.z", output=False)(tiny.model, tiny.clean)["blocks.attn.z"].mean((1, 2))
    edit = mean_ablate(mean[:, None, None])
    g = patching.sweep(tiny.f, tiny.metric, "blocks.attn.z", edit, ("layer", "head"), plan="data")
    cut = ij.intervene(tiny.f, {"blocks.attn.z": at(edit, layer=1, head=1)})
    want = tiny.metric(cut(tiny.model, tiny.clean)).mean()
    np.testing.assert_allclose(g(tiny.model, tiny.clean)[1, 1], want, atol=1e-5)


@pytest.mark.parametrize("plan", ["static", "data"])
def test_a_window_edits_layers_together(tiny, plan) -> None:
    g = patching.sweep(tiny.f, tiny.metric, "blocks.mlp_out", zero(), ("layer",), window=2, plan=plan)
    effects = g(tiny.model, tiny.clean)
    for layer, together in enumerate([(0,), (0, 1)]):
        cut = ij.intervene(tiny.f, {f"blocks.{k}.mlp_out": zero() for k in together})
        np.testing.assert_allclose(effects[layer], tiny.metric(cut(tiny.model, tiny.clean)).mean(), atol=1e-5)


@pytest.mark.parametrize(("window", "over"), [(1, ("layer", "head")), (3, ("layer",))])
def test_a_deep_scan_is_cut_in_parts(microworld, monkeypatch, window, over) -> None:
    """In each part, what comes before its layers runs once; the map is that of one piece."""
    sweep = partial(patching.sweep, microworld.f, microworld.metric, "blocks.attn.z", zero(), over, window=window)
    args = models.stack_layers(microworld.model), microworld.clean
    whole = sweep(plan="data", chunk=4)(*args)
    monkeypatch.setattr(grid, "DEEP", 3)
    parts = sweep(plan="data", chunk=3)
    np.testing.assert_allclose(parts(*args), whole, atol=1e-5)
    assert "length=3" in str(jax.make_jaxpr(parts)(*args)), "every layer is run for every place"


def test_summary() -> None:
    effects = jax.random.normal(jax.random.key(0), (400, 3)) + jnp.array([0.0, 1.0, 5.0])
    found = patching.summarize(jax.random.key(1), effects)
    np.testing.assert_allclose(found.standard_error, np.std(effects, 0, ddof=1) / 20, rtol=1e-4)
    # Of a mean of many, the bootstrap's interval is the normal one.
    np.testing.assert_allclose(found.high - found.mean, 1.96 * found.standard_error, rtol=0.15)
    np.testing.assert_allclose(found.mean - found.low, 1.96 * found.standard_error, rtol=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": jnp.zeros((3, 5), int)}, r"clean is \[3, 5\], corrupted \[3, 6\]: give pairs of the same length"),
        ({"metric": lambda logits: logits.mean()}, r"the metric gave \[\] for \[3\] examples"),
        ({"metric": lambda logits: logits}, r"the metric gave \[3, 37\] for \[3\] examples"),
        ({"over": ("layer", "head")}, "'head' that site 'blocks.resid_pre' has not; its axes: layer, batch, position"),
        ({"over": ("layer", "layer")}, "'layer' twice"),
        ({"where": "blocks.1.resid_pre"}, "'layer' that site 'blocks.1.resid_pre' has not"),
        ({"where": "blocks.attn.*"}, "names .* sites, a sweep goes over one"),
        ({"where": "blocks.residpre"}, "matches no site; near names: blocks.resid_pre"),
        ({"plan": "fast"}, "plan='fast' is neither"),
        ({"chunk": 0}, "chunk=0: it must be at least 1"),
    ],
)
def test_bad_input_is_one_line(tiny, change, message) -> None:
    clean, metric = change.pop("clean", tiny.clean), change.pop("metric", tiny.metric)
    options = {"where": "blocks.resid_pre", **change}
    with pytest.raises(ValueError, match=message) as error:
        patching.activation_patch(tiny.f, metric, **options)(tiny.model, clean, tiny.corrupted)
    assert "\n" not in str(error.value)
