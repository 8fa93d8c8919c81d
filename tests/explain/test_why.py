"""Why this token: scores add up on every family, and are what recomputations of other kinds say."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, lens, models
from interp_jax.explain import Node, ablate, ablations, node_means, why, why_active, why_attends
from interp_jax.interventions import at, scale, zero
from tests.models.conftest import FAMILY, random_model

TOKENS = jnp.array([1, 4, 2, 7, 3, 9])
QUICK = ("gemma2",)  # norms on both sides, caps
FAMILIES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in FAMILY if name != "bert"]


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(replace(FAMILY["llama"], n_kv_heads=1))


def adds_up(found: Any, by: str, tolerance: float = 1e-4) -> bool:
    sizes = sum(float(jnp.abs(part.values[by]).sum()) for part in found.parts)
    return abs(float(found.total(by)) - float(found.value)) < tolerance * max(sizes, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_add_up_on_every_family(family: str) -> None:
    model = random_model(FAMILY[family])
    weights, f = models.weights(model), models.forward
    found = why(f, 3, 5)(model, weights, TOKENS)
    out = "unembed.out" if "unembed.out" in ij.sites(f, model, TOKENS) else "logits"
    logits = ij.capture(f, out, output=False)(model, TOKENS)[out][-1]
    np.testing.assert_allclose(found.value, logits[3] - logits[5], rtol=1e-5)
    assert adds_up(found, "direct")
    zero = jnp.zeros((1, 8))
    ends = [
        read(weights, jnp.array([token])) for token in (3, 5) for read in (lens.logit_directions, lens.logit_biases)
    ]
    unit = None if "ln_final_w" not in weights else jnp.ones((1, 1))
    constant = lens.direct_attribution(weights, {"": zero}, unit, ends[0] - ends[2], bias=ends[1] - ends[3])["bias"]
    np.testing.assert_allclose(found.constants["direct"], constant[0], atol=1e-3)  # of no node: biases alone
    result = ij.capture(f, "blocks.attn.result", output=False)(model, TOKENS)["blocks.attn.result"]
    if "ln1_post_w" not in weights:
        heads = next(part for part in found.parts if part.kind == "head")
        np.testing.assert_allclose(heads.values["magnitude"], jnp.linalg.norm(result, axis=-1), rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma3_text"])  # all that sets nodes apart
def test_what_is_upstream_adds_up_on_every_family(family: str) -> None:
    model = random_model(FAMILY[family])
    weights, f = models.weights(model), models.forward
    for asked, scores in (
        (why_active(f, "head 1.1 at 5"), ("direct",)),
        (why_active(f, "head 1.0 at 5", toward=(3, 5)), ("direct",)),
        (why_active(f, Node("neuron", 1, 2, 4)), ("direct",)),
        (why_attends(f, 1, 1, 5, 3), ("query", "key")),
    ):
        found = asked(model, weights, TOKENS)
        assert all(adds_up(found, name) for name in scores), found.title


@pytest.mark.long
def test_gradients_and_ablations_are_those_of_edits(model: Any) -> None:
    weights, f = models.weights(model), models.forward
    found = why(f, 3, 5)(model, weights, TOKENS)

    def difference(edits: Any) -> Any:
        logits = ij.intervene(f, edits)(model, TOKENS)[-1]
        return logits[3] - logits[5]

    def of_head(edit: Any) -> Any:
        return {"blocks.attn.z": at(edit, layer=0, head=1, position=2)}

    def of_neuron(edit: Any) -> Any:
        return {"blocks.mlp.post": at(at(edit, axis=-1, index=4), layer=1, position=5)}

    nodes = ["head 0.1 at 2", "neuron 1.4 at 5"]
    for name, edits in zip(nodes, (of_head, of_neuron), strict=True):
        slope = jax.grad(lambda alpha, edits=edits: difference(edits(scale(alpha))))(1.0)
        np.testing.assert_allclose(found[name].scores["gradient"], slope, rtol=1e-4, atol=1e-6)
        without = ablate(f, name, 3, 5)(model, weights, TOKENS)
        np.testing.assert_allclose(without.value, difference(edits(zero())), rtol=1e-5)
    each = ablations(f, [*nodes, nodes[0]], 3, 5)(model, weights, TOKENS)
    assert each[2].likeliest() == each[0].likeliest() == ablate(f, nodes[0], 3, 5)(model, weights, TOKENS).likeliest()
    np.testing.assert_allclose(each.value[:2], [difference(of_head(zero())), difference(of_neuron(zero()))], rtol=1e-4)
    both = ablate(f, nodes, 3, 5)(model, weights, TOKENS)
    np.testing.assert_allclose(both.value, difference(of_head(zero()) | of_neuron(zero())), rtol=1e-5)
    means = node_means(f)(model, TOKENS[None])
    z = ij.capture(f, "blocks.attn.z", output=False)(model, TOKENS)["blocks.attn.z"]
    np.testing.assert_allclose(means["blocks.attn.z"], z.mean(1), rtol=1e-5, atol=1e-6)
    edits = of_head(lambda value: jnp.broadcast_to(z.mean(1)[0], value.shape))
    kept = ablate(f, nodes[0], 3, 5, means=means)(model, weights, TOKENS)
    np.testing.assert_allclose(kept.value, difference(edits), rtol=1e-5)


@pytest.mark.long
def test_padding_scanned_layers_bfloat16_and_jit_change_nothing(model: Any) -> None:
    weights, f = models.weights(model), models.forward
    alone = why(f, 3, 5)(model, weights, TOKENS)
    size = len(TOKENS)
    for side in ("left", "right"):
        pads = (2, 0) if side == "left" else (0, 2)
        tokens, mask = jnp.pad(TOKENS, pads), jnp.pad(jnp.ones(size, bool), pads)
        padded = why(f, 3, 5)(model, weights, tokens[None], mask[None])
        for part, there in zip(alone.parts, padded.parts, strict=True):
            for name, values in part.values.items():
                same = there.values[name][:, pads[0] : pads[0] + size]
                np.testing.assert_allclose(same, values, rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(there.values[name].sum(), same.sum(), rtol=1e-5)  # none at padding
        node = f"head 1.1 at {pads[0] + 5}"
        up = [why_active(f, n)(model, weights, *x) for n, x in ((node, (tokens, mask)), ("head 1.1 at 5", (TOKENS,)))]
        np.testing.assert_allclose(up[0].value, up[1].value, rtol=1e-4)
    stacked = models.stack_layers(model)
    for other, rtol in ((stacked, 1e-4), (jax.tree.map(lambda x: x.astype(jnp.bfloat16), stacked), 0.1)):
        own = jax.jit(why(f, 3, 5))(other, models.weights(other), TOKENS)
        np.testing.assert_allclose(own.value, alone.value, rtol=rtol)
        assert adds_up(own, "direct", tolerance=rtol / 10)
        np.testing.assert_allclose(own.parts[1].values["gradient"], alone.parts[1].values["gradient"], rtol, rtol / 4)


@pytest.mark.long
def test_dictionaries_take_the_place_of_what_they_stand_for(model: Any) -> None:
    weights, f, keys = models.weights(model), models.forward, jax.random.split(jax.random.key(0), 3)
    some = {
        "blocks.0.mlp_out": dictionaries.SkipTranscoder.create(keys[0], 8, 12),
        "blocks.1.attn_out": dictionaries.ReLU.create(keys[1], 8, 12),
    }
    found = why(f, 3, 5, dictionaries=some)(model, weights, TOKENS)
    assert adds_up(found, "direct")
    kinds = [part.kind for part in found.parts]
    assert {"mlp_out feature", "mlp_out error", "attn_out feature", "head", "neuron"} <= set(kinds)
    neurons, heads = (next(part for part in found.parts if part.kind == kind) for kind in ("neuron", "head"))
    assert neurons.layers == (1,) and heads.layers == (0,)
    node = found.top(1, kinds=["mlp_out feature"])[0]
    left = ablations(f, [node.node], 3, 5, dictionaries=some)(model, weights, TOKENS)
    edit = dictionaries.splice(
        some["blocks.0.mlp_out"],
        edit=at(at(zero(), feature=node.node.unit), position=node.node.position),
        sites=("blocks.0.mlp_in", "blocks.0.mlp_out"),
    )
    logits = ij.intervene(f, {"blocks.0.mlp_out": edit})(model, TOKENS)[-1]
    np.testing.assert_allclose(left.value[0], logits[3] - logits[5], rtol=1e-4)
    for kind in ("mlp_out feature", "attn_out feature"):
        node = found.top(1, kinds=[kind])[0].node
        up = why_active(f, node, dictionaries=some)(model, weights, TOKENS)
        assert adds_up(up, "direct") and up.top(1)
    stream = {"blocks.0.resid_post": dictionaries.ReLU.create(keys[2], 8, 12)}
    found = why(f, 3, 5, dictionaries=stream)(model, weights, TOKENS)
    assert adds_up(found, "direct") and {part.layers for part in found.parts} == {(0,), (1,)}
    node = found.top(1, kinds=["resid_post feature"])[0].node
    assert adds_up(why_active(f, node, dictionaries=stream)(model, weights, TOKENS), "direct")


def test_a_result_prints_and_names_are_read_back(model: Any) -> None:
    found = why(models.forward, 3, 5)(model, models.weights(model), TOKENS)
    rows = found.top(4, by="gradient")
    sizes = [abs(row.scores["gradient"]) for row in found.rows()]
    assert [abs(row.scores["gradient"]) for row in rows] == sorted(sizes, reverse=True)[:4]
    assert all(Node.read(str(row.node)) == row.node and found[str(row.node)] == row for row in rows)
    assert str(found).splitlines()[1].split() == ["node", "position", "magnitude", "direct", "gradient"]
    assert "<table>" in found._repr_html_()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda f: why(f, 3, 3), "both tokens are 3"),
        (lambda f: why(f, " a", 3), "needs tokenizer="),
        (lambda f: why(f, 3, 99), "token 99 is not in the vocabulary of 11"),
        (lambda f: why(f, 3, 5, position=6), "position 6: the prompt has 6 tokens"),
        (lambda f: why(f, 3, 5, dictionaries={"blocks.attn_out": None}), "give the address of one layer"),
        (lambda f: why_active(f, "head 9.1 at 2"), "no head 9.1: there are 2 layers of 2"),
        (lambda f: why_active(f, "embed at 2"), "give a head, a neuron or a feature"),
        (lambda f: why_active(f, "heads of state"), "give a name as it is printed"),
        pytest.param(lambda f: why_attends(f, 1, 1, 2, 4), "does not see 4 from 2", marks=pytest.mark.long),
        (lambda f: ablate(f, "attn_bias 1 at 2", 3, 5), "a bias is no activation"),
        (lambda f: ablate(f, "resid_post feature 1.3 at 2", 3, 5), "no resid_post feature 1.3"),
        (lambda f: ablate(f, [], 3, 5), "no node is given"),
    ],
)
def test_bad_input_is_told_in_one_line(model: Any, asked: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        asked(models.forward)(model, models.weights(model), TOKENS)
    assert "\n" not in str(caught.value)
