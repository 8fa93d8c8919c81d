"""Changed features do what the graph's edges say where all else is held, and what the model makes of them elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import graphs, models
from interp_jax.interventions import at, replace
from tests.graphs.conftest import LONG, SETS, TOKENS, graph, model


@pytest.mark.parametrize("set_of", ["cross", pytest.param("skip", marks=LONG)])
def test_held_everywhere_effects_are_edges(set_of: str, scanned: bool) -> None:
    f, transcoders, made = model(scanned=scanned), SETS[set_of](), graph(set_of)
    nodes = made.find("feature", layer=0)[::7].tolist() + made.find("feature", layer=1)[::9].tolist()
    changes = graphs.change(made, nodes, -0.5)
    got = graphs.feature_effects(models.forward, transcoders, layers=(0, 3))(f, TOKENS, changes)
    want = graphs.predicted(made, changes)
    skips = set_of == "skip"  # what goes around features is held too, so that only what is direct is left
    for node in made.find("feature"):
        place = int(made.layer[node]), int(made.position[node]), int(made.index[node])
        change = got.features[place[0]][place[1:]] - got.features_before[place[0]][place[1:]]
        if not skips or place[0] < 1:
            assert want[node] == pytest.approx(float(change), abs=1e-4)
    out = np.asarray(got.logits[-1] - got.logits_before[-1])
    for node in [] if skips else made.find("logit"):
        assert want[node] == pytest.approx(out[made.index[node]] - out.mean(), abs=1e-4)
    assert np.abs(want[made.find("logit")]).max() > 0.01


@pytest.mark.long
def test_free_changes_are_edits_of_features() -> None:
    """Without a range, a change is an edit of the replacement model's features, whatever follows."""
    f, transcoders, made = model(scanned=True), SETS["per layer"](), graph("per layer")
    node = int(made.find("feature", layer=1)[0])
    place = int(made.position[node]), int(made.index[node])
    got = graphs.feature_effects(models.forward, transcoders, hold_patterns=False)(
        f, TOKENS, graphs.change(made, [node], 3.0)
    )
    g = graphs.replace_mlps(models.forward, transcoders)
    edit = at(replace(jnp.float32(3 * made.activation[node])), position=place[0], feature=place[1])
    want = ij.intervene(g, {"blocks.1.mlp_out.features": edit})(f, TOKENS)
    assert jnp.allclose(got.logits, want, atol=1e-4)
    assert not jnp.allclose(got.logits, got.logits_before, atol=1e-2)


@pytest.mark.parametrize("set_of", ["per layer", pytest.param("cross", marks=LONG)])
def test_generation_under_changes(set_of: str) -> None:
    """With the cache and without it, every new token is made under the change, not the first alone."""
    f, transcoders = model(scanned=False), SETS[set_of]()
    changes = graphs.Changes(jnp.array([0, 1]), None, jnp.array([3, 5]), jnp.array([6.0, -4.0]))
    edits = graphs.feature_edits(transcoders, changes)
    new = models.generate(f, TOKENS[:3], 4, edits=edits)
    text = TOKENS[:3]
    for _ in range(4):
        text = jnp.append(text, ij.intervene(models.forward, edits)(f, text)[-1].argmax())
    assert new.tolist() == text.tolist() != models.generate(f, TOKENS[:3], 4).tolist()


@pytest.mark.long
def test_swap_and_control() -> None:
    f, transcoders, made = model(scanned=False), SETS["per layer"](), graph("per layer")
    other = graphs.attribution_graph(models.forward, f, transcoders, TOKENS[::-1])
    out, into = made.find("feature", layer=1)[:3], other.find("feature", layer=1, position=2)[:2]
    changes = graphs.swap(made, out.tolist(), other, into.tolist(), factor=2.0)
    assert changes.value.tolist() == pytest.approx([0, 0, 0, *(2 * other.activation[into])])
    suppressed = graphs.change(made, out.tolist())
    control = graphs.random_changes(jax.random.key(0), transcoders, made, suppressed)
    assert control.layer.tolist() == [1, 1, 1]
    size = lambda some, amount: np.abs(amount) * np.linalg.norm(transcoders[1].W_dec[some.index], axis=-1)  # noqa: E731
    assert size(control, control.value) == pytest.approx(size(suppressed, made.activation[out]), rel=1e-4)
    run = graphs.feature_effects(models.forward, transcoders, layers=(0, 2))
    assert jnp.isfinite(run(f, TOKENS, control).logits).all()


def test_bad_changes() -> None:
    f, transcoders, made = model(scanned=False), SETS["per layer"](), graph("per layer")
    with pytest.raises(ValueError, match="is no feature of the graph"):
        graphs.change(made, [len(made) - 1])
    with pytest.raises(ValueError, match="at every position"):
        graphs.predicted(made, graphs.change(made, [0], everywhere=True))
    with pytest.raises(ValueError, match="no transcoder of layer 7"):
        graphs.feature_edits(transcoders, graphs.Changes(jnp.array([7]), None, jnp.array([0]), jnp.array([1.0])))
    with pytest.raises(ValueError, match=r"layers=\(0, 9\): the model has layers 0 to 2"):
        graphs.feature_effects(models.forward, transcoders, layers=(0, 9))(f, TOKENS, graphs.change(made, [0]))
