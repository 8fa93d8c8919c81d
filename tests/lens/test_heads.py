"""Scores of heads, against a count by hand, and on the microworld, which repeats sequences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import lens, models

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
    got = getattr(lens, name)(jnp.asarray(pattern), jnp.asarray(tokens), jnp.asarray(mask) if padded else None)
    np.testing.assert_allclose(got, mass / len(queries), rtol=1e-5)


def test_without_its_induction_heads_the_microworld_forgets_repetitions() -> None:
    model, _ = models.load("microworld", dtype=jnp.float32)
    half = jax.random.randint(jax.random.key(0), (16, 10), 100, 600)
    tokens = jnp.concatenate([half, half], axis=1)

    def loss(heads):
        edits = {
            f"blocks.{layer}.attn.z": ij.interventions.at(ij.interventions.zero(), head=head) for layer, head in heads
        }
        log_probs = jax.nn.log_softmax(ij.intervene(models.forward, edits)(model, tokens)[:, 10:-1])
        return -float(jnp.take_along_axis(log_probs, tokens[:, 11:, None], axis=-1).mean())

    pattern = ij.capture(models.forward, "blocks.attn.pattern", output=False)(model, tokens)["blocks.attn.pattern"]
    order = np.argsort(np.ravel(lens.induction_scores(pattern, tokens)))
    best, worst = divmod(int(order[-1]), 4), divmod(int(order[0]), 4)
    assert loss([best]) - loss([]) > loss([worst]) - loss([])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="does not belong to tokens"):
        lens.induction_scores(jnp.zeros((1, 1, 1, 4, 4)), jnp.zeros((1, 5), int))
