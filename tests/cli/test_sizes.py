"""Sizes of the quickstart: what is asked for is kept to, what is not follows from the model, and takes minutes."""

import pytest

from interp_jax import models
from interp_jax.cli.sizes import Sizes, plan

QUIET = 1e11  # operations a second, of two cores


def model_of(**sizes):
    config = models.Config(n_ctx=2048, gated=True, norm="rmsnorm", positions="rotary", **sizes)
    return models.Decoder.abstract(config)


MICROWORLD = dict(n_layers=4, n_heads=4, d_model=128, d_mlp=512, d_vocab=1300)
SMOLLM2 = dict(n_layers=30, n_heads=9, n_kv_heads=3, d_model=576, d_mlp=1536, d_vocab=49152)
GEMMA = dict(n_layers=18, n_heads=4, n_kv_heads=1, d_head=256, d_model=640, d_mlp=2048, d_vocab=262144)


@pytest.mark.parametrize("sizes", [MICROWORLD, SMOLLM2, GEMMA])
def test_it_takes_minutes(sizes) -> None:
    planned = plan(Sizes(), model_of(**sizes), sizes["d_model"])
    rows = -(-planned.tokens // planned.positions)
    assert planned.seconds((rows, planned.positions), QUIET) < 300
    assert planned.tokens >= 32 * planned.positions and planned.steps >= 50


def test_a_small_model_has_the_whole_of_it() -> None:
    planned = plan(Sizes(), model_of(**MICROWORLD), 128)
    assert (planned.tokens, planned.steps, planned.d_sae, planned.held_out, planned.steered) == (
        *(400_000, 2000, 2048),
        *(128, 24),
    )


def test_what_is_asked_for_is_kept_to() -> None:
    planned = plan(Sizes(tokens=60_000, steps=7, expansion=3, k=5, positions=50), model_of(**SMOLLM2), 576)
    assert (planned.tokens, planned.steps, planned.d_sae, planned.k, planned.positions) == (60_000, 7, 1728, 5, 50)
    for sizes in (Sizes(tokens=0), Sizes(steps=0), Sizes(k=-1), Sizes(positions=0)):
        with pytest.raises(ValueError, match="--sizes.* it must be at least 1"):
            plan(sizes, model_of(**SMOLLM2), 576)
    with pytest.raises(ValueError, match="k=2000 is larger than d_sae=576"):
        plan(Sizes(expansion=1, k=2000), model_of(**SMOLLM2), 576)
