"""Edge attribution: the edges into a node add up to the attribution of all that it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, patching
from interp_jax.interventions import add, at

LLAMA = models.Config(
    n_layers=2, n_heads=4, n_kv_heads=2, d_model=8, d_mlp=12, d_vocab=37, n_ctx=8, family="llama", act="silu",
    gated=True, norm="rmsnorm", positions="rotary", attn_bias=False, mlp_bias=False, tie_embeddings=False,
)  # fmt: skip
METRIC = metrics.logit_diff(jnp.array([1, 2]), jnp.array([4, 5]))


def last(model, tokens):
    return models.forward(model, tokens)[:, -1]


def random_model(config, cls=models.Decoder):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        cls.create(jax.random.key(0), config),
    )


@pytest.mark.long
@pytest.mark.parametrize("steps", [0, 3])
def test_edges_into_a_node_add_up(tiny, steps) -> None:
    f, metric, model, clean, corrupted = tiny
    edges = patching.edge_attribution(f, metric, steps=steps)(model, clean, corrupted)
    into = dict(zip(edges.receivers, edges.scores.sum(0), strict=True))
    embed, mlp = "blocks.0.resid_pre", "blocks.mlp_in"
    sites = [embed, mlp, "blocks.q_input", "blocks.resid_post"]
    there, here = (ij.capture(f, sites, output=False)(model, x) for x in (clean, corrupted))
    shares = [k / steps for k in range(1, steps + 1)] or [0.0]
    slopes = []
    for share in shares:
        run = ij.intervene(f, {embed: ij.interventions.replace((1 - share) * here[embed] + share * there[embed])})
        slopes.append(ij.grads(run, lambda out: metric(out).mean(), sites[1:])(model, corrupted)[2])
    change = {s: (there[s] - here[s]) * sum(slope[s] for slope in slopes) / len(slopes) for s in sites[1:]}
    np.testing.assert_allclose(into["mlp 1"], change[mlp][1].sum(), atol=1e-5)
    np.testing.assert_allclose(into["logits"], change["blocks.resid_post"][-1].sum(), atol=1e-5)
    np.testing.assert_allclose(into["q 1.1"], change["blocks.q_input"][1, :, :, 1].sum(), atol=1e-5)
    scores = dict(zip(edges.senders, edges.scores, strict=True))
    assert scores["mlp 1"][edges.receivers.index("q 1.0")] == 0 != scores["mlp 0"][edges.receivers.index("q 1.0")]


@pytest.mark.long
def test_grouped_queries_by_finite_differences_and_scanned_layers() -> None:
    """Two query heads share each key-value head; an edge is the slope of adding what its sender changed to an input."""
    model = random_model(LLAMA)
    clean, corrupted = jax.random.randint(jax.random.key(1), (2, 2, 5), 0, 37)
    edges = patching.edge_attribution(last, METRIC)(model, clean, corrupted)
    assert edges.receivers[:4] == ("q 0.0", "q 0.1", "q 0.2", "q 0.3") and "k 1.2" in edges.receivers
    assert "k 0.1" not in edges.receivers and len(edges.receivers) == 2 * (4 + 2 + 2 + 1) + 1
    scanned = patching.edge_attribution(last, METRIC)(models.stack_layers(model), clean, corrupted)
    assert scanned.senders == edges.senders and scanned.receivers == edges.receivers
    np.testing.assert_allclose(scanned.scores, edges.scores, atol=1e-5)

    there, here = (ij.capture(last, "blocks.attn.result", output=False)(model, x) for x in (clean, corrupted))
    written = (there["blocks.attn.result"] - here["blocks.attn.result"])[0, :, :, 3]

    @jax.jit
    def dosed(dose):
        def run(site, head):
            edit = at(add((dose * written)[:, :, None]), head=head)
            return METRIC(ij.intervene(last, {site: edit})(model, corrupted)).mean()

        mlp = METRIC(ij.intervene(last, {"blocks.1.mlp_in": add(dose * written)})(model, corrupted)).mean()
        return jnp.array([run("blocks.1.k_input", 1), run("blocks.1.v_input", 0), run("blocks.1.q_input", 2), mlp])

    step = 1e-2
    slopes = (dosed(jnp.float32(step)) - dosed(jnp.float32(-step))) / (2 * step)
    found = [
        edges.scores[edges.senders.index("head 0.3"), edges.receivers.index(name)]
        for name in ("k 1.2", "v 1.0", "q 1.2", "mlp 1")
    ]
    np.testing.assert_allclose(found, slopes, rtol=1e-2, atol=1e-4)


@pytest.mark.long
def test_edges_along_activations_add_up_to_what_their_layer_does(tiny) -> None:
    """The mean of slopes while one layer's heads go from corrupted to clean is the effect of that; layers scanned."""
    f, metric, model, clean, corrupted = tiny
    model = models.stack_layers(model)
    sums = {}
    for steps in (16, 32):
        edges = patching.edge_attribution(f, metric, steps=steps, along="activations")(model, clean, corrupted)
        groups = {"embed": "embed", "head 0": "head 0.", "head 1": "head 1.", "mlp 0": "mlp 0", "mlp 1": "mlp 1"}
        sums[steps] = {
            group: float(
                sum(row.sum() for name, row in zip(edges.senders, edges.scores, strict=True) if name.startswith(start))
            )
            for group, start in groups.items()
        }
    addresses = {
        "embed": "blocks.0.resid_pre", "head 0": "blocks.0.attn_out", "head 1": "blocks.1.attn_out",
        "mlp 0": "blocks.0.mlp_out", "mlp 1": "blocks.1.mlp_out",
    }  # fmt: skip
    here = ij.capture(f, list(addresses.values()), output=False)(model, corrupted)
    for group, site in addresses.items():
        without = metric(ij.intervene(f, {site: ij.interventions.replace(here[site])})(model, clean)).mean()
        effect = float(metric(f(model, clean)).mean() - without)
        # The mean over the later ends of n steps is off by a multiple of 1 / n, which two of them take out.
        np.testing.assert_allclose(2 * sums[32][group] - sums[16][group], effect, atol=0.02 * max(1, abs(effect)))
    looped = patching.edge_attribution(f, metric, steps=2, along="activations")(tiny.model, clean, corrupted)
    scanned = patching.edge_attribution(f, metric, steps=2, along="activations")(model, clean, corrupted)
    np.testing.assert_allclose(looped.scores, scanned.scores, atol=1e-4)


@pytest.mark.long
def test_one_edge_along_activations_by_hand(tiny) -> None:
    f, metric, model, clean, corrupted = tiny
    edges = patching.edge_attribution(f, metric, steps=2, along="activations")(model, clean, corrupted)
    site, into = "blocks.0.attn.result", "blocks.1.mlp_in"
    there, here = (ij.capture(f, site, output=False)(model, x)[site] for x in (clean, corrupted))
    slopes = [
        ij.grads(
            ij.intervene(f, {site: ij.interventions.replace((there + here) / 2 if share < 1 else there)}),
            lambda out: metric(out).mean(),
            into,
        )(model, clean)[2][into]
        for share in (0.5, 1.0)
    ]
    wanted = ((there - here)[:, :, 1] * (slopes[0] + slopes[1]) / 2).sum()
    found = edges.scores[edges.senders.index("head 0.1"), edges.receivers.index("mlp 1")]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "cls", "message"),
    [
        ({"norms": "both"}, models.Decoder, "'blocks.ln1_post.scale': what heads write is normalized"),
        ({"norms": "post"}, models.Decoder, "'blocks.ln1_post.scale': what heads write is normalized"),
        ({"norms": "residual", "n_types": 1}, models.Encoder, "'blocks.normalized_resid_post': what heads write is"),
        ({"parallel": True}, models.Decoder, "attention and MLP must follow one another"),
    ],
)
def test_models_whose_edges_are_not_additive_are_refused(change, cls, message) -> None:
    config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=8, d_vocab=37, n_ctx=8, **change)
    tokens = jnp.zeros((2, 3), jnp.int32)
    with pytest.raises(ValueError, match=message) as error:
        patching.edge_attribution(last, METRIC)(cls.create(jax.random.key(0), config), tokens, tokens)
    assert "\n" not in str(error.value)


def test_a_guest_without_the_sites_of_heads_is_refused() -> None:
    def guest(w, tokens):
        x = jnp.take(w, tokens, axis=0)
        for name in ("blocks.resid_pre", "blocks.resid_mid", "blocks.mlp_out", "blocks.resid_post"):
            x = ij.site(x, name, layer=0, axes=("batch", "position", "d_model"))
        return x[:, -1]

    tokens = jnp.zeros((2, 3), jnp.int32)
    with pytest.raises(
        ValueError, match="no site 'blocks.attn.result': the function must declare what each head"
    ) as error:
        patching.edge_attribution(guest, METRIC)(jnp.ones((4, 37)), tokens, tokens)
    assert "\n" not in str(error.value)


def test_bad_input(tiny) -> None:
    with pytest.raises(ValueError, match="steps=-1 is negative"):
        patching.edge_attribution(tiny.f, tiny.metric, steps=-1)
    with pytest.raises(ValueError, match="along='outputs' is neither 'inputs' nor 'activations'"):
        patching.edge_attribution(tiny.f, tiny.metric, steps=1, along="outputs")
    with pytest.raises(ValueError, match="along='activations' with steps=0: there is no way to go, give 1 or more"):
        patching.edge_attribution(tiny.f, tiny.metric, along="activations")
    with pytest.raises(ValueError, match="give pairs of the same length"):
        patching.edge_attribution(tiny.f, tiny.metric)(tiny.model, jnp.zeros((3, 2), int), tiny.corrupted)
