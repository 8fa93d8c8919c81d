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
    with pytest.raises(ValueError, match="give pairs of the same length"):
        patching.edge_attribution(tiny.f, tiny.metric)(tiny.model, jnp.zeros((3, 2), int), tiny.corrupted)
