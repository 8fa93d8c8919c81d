"""Scores of heads, against a count by hand, and on the microworld, which repeats sequences."""

from functools import partial
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import data, heads, metrics, models, patching
from interp_jax.interventions import zero

WANTED = {
    "previous_token_scores": lambda tokens, t, s: s == t - 1,
    "duplicate_token_scores": lambda tokens, t, s: tokens[s] == tokens[t],
    "induction_scores": lambda tokens, t, s: s > 0 and tokens[s - 1] == tokens[t],
}


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("padded", [False, True])
def test_by_hand(name, padded) -> None:
    rng = np.random.default_rng(0)
    tokens, pattern = rng.integers(0, 3, (2, 8)), rng.random((2, 2, 3, 8, 8)).astype(np.float32)
    mask = np.ones((2, 8), bool)
    if padded:
        mask[0, :3], mask[1, 6:] = False, False
    mass, queries = np.zeros((2, 3)), set()
    for row, t in itertools.product(range(2), range(8)):
        for s in range(t):
            known = name != "induction_scores" or s == 0 or mask[row, s - 1]
            if mask[row, t] and mask[row, s] and known and WANTED[name](tokens[row], t, s):
                mass += pattern[:, row, :, t, s]
                queries.add((row, t))
    got = getattr(heads, name)(jnp.asarray(pattern), jnp.asarray(tokens), jnp.asarray(mask) if padded else None)
    np.testing.assert_allclose(got, mass / len(queries), rtol=1e-5)


@pytest.mark.long
def test_in_the_microworlds_last_layer_ablation_finds_the_same_induction_heads() -> None:
    model, tokenizer = models.load("microworld", dtype=jnp.float32)
    task = data.tasks.repeated(jax.random.key(0), tokenizer, n=32)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    where = "blocks.3.attn.pattern"
    pattern = ij.capture(f, where, output=False)(model, task.clean)[where]
    scores = heads.induction_scores(pattern, task.clean, task.mask)
    metric = metrics.logit_diff(task.answers, task.distractors)
    left = patching.sweep(f, metric, "blocks.3.attn.z", zero(), ("head",))(model, task.clean)
    assert scores.argmax() == left.argmin() and scores.argmin() == left.argmax()


@pytest.mark.parametrize(
    ("name", "tokens", "mask"),
    [
        ("induction_scores", [[4, 5, 6]], None),
        ("induction_scores", [[4, 4, 5]], None),  # the place after the first is the query itself
        ("induction_scores", [[4, 5, 4]], [[False, True, True]]),
        ("duplicate_token_scores", [[4, 5, 6]], None),
        ("duplicate_token_scores", [[4, 5, 4]], [[True, True, False]]),
        ("previous_token_scores", [[4]], None),
        ("previous_token_scores", [[4, 5]], [[False, True]]),
    ],
)
def test_nothing_to_look_at_is_an_error(name, tokens, mask) -> None:
    tokens, n = jnp.array(tokens), len(tokens[0])
    pattern, score = jnp.full((1, 1, 2, n, n), 1 / n), getattr(heads, name)
    mask = None if mask is None else jnp.array(mask)
    with pytest.raises(ValueError, match=rf"tokens of shape \[1, {n}\] have no query with such a place"):
        score(pattern, tokens, mask)
    assert np.isnan(jax.jit(score)(pattern, tokens, mask)).all()  # as it says: what is traced cannot be looked at


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="does not belong to tokens"):
        heads.induction_scores(jnp.zeros((1, 1, 1, 4, 4)), jnp.zeros((1, 5), int))
    with pytest.raises(ValueError, match=r"a pattern of shape \[1, 2, 1, 5, 5\] does not belong to tokens of \[1, 5\]"):
        inspect.unwrap(heads.induction_scores)(jnp.zeros((1, 2, 1, 5, 5)), jnp.zeros((1, 5), int))
    with pytest.raises(ValueError, match=r"\(1, 4\), \(1, 5\).*the mask does not belong to these tokens"):
        inspect.unwrap(heads.induction_scores)(
            jnp.zeros((1, 1, 1, 5, 5)), jnp.zeros((1, 5), int), jnp.ones((1, 4), bool)
        )
