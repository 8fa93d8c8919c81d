"""TopK on the same weights in SAELens: features, reconstruction, loss and gradients."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sae_lens")

from interp_jax import dictionaries  # noqa: E402

pytestmark = pytest.mark.parity

D_IN, D_SAE, K = 12, 48, 5
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


@pytest.fixture(scope="module")
def pair() -> tuple[Any, dictionaries.TopK]:
    """SAELens's training form and ours, with every weight random."""
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    keys = jax.random.split(jax.random.key(0), 4)
    ours = dictionaries.TopK.create(keys[0], D_IN, D_SAE, K, b_dec=jax.random.normal(keys[1], (D_IN,)))
    ours = replace(
        ours,
        W_enc=ours.W_enc + 0.2 * jax.random.normal(keys[2], ours.W_enc.shape),
        b_enc=0.3 * jax.random.normal(keys[3], ours.b_enc.shape),
    )
    config = TopKTrainingSAEConfig(
        d_in=D_IN, d_sae=D_SAE, k=K, apply_b_dec_to_input=True, rescale_acts_by_decoder_norm=False
    )
    peer = TopKTrainingSAE(config)
    with torch.no_grad():
        for name in NAMES:
            getattr(peer, name).copy_(torch.tensor(np.asarray(getattr(ours, name))))
    return peer, ours


@pytest.fixture
def x() -> jax.Array:
    return jax.random.normal(jax.random.key(9), (64, D_IN)) * 2 + 0.5


def test_features_and_reconstruction(pair: Any, x: jax.Array) -> None:
    peer, ours = pair
    theirs = peer.encode(torch.tensor(np.asarray(x)))
    np.testing.assert_allclose(ours.encode(x), theirs.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(ours(x), peer.decode(theirs).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("n_dead", [0, 11])  # none, and more than SAELens's k_aux = d_in / 2, where its scale is 1
def test_loss_and_gradients(pair: Any, x: jax.Array, n_dead: int) -> None:
    from sae_lens.saes.sae import TrainStepInput

    peer, ours = pair
    dead = np.arange(D_SAE) < n_dead
    peer.zero_grad()
    step = TrainStepInput(
        sae_in=torch.tensor(np.asarray(x)),
        coefficients={},
        dead_neuron_mask=torch.tensor(dead),
        n_training_steps=0,
        is_logging_step=False,
    )
    theirs = peer.training_forward_pass(step).loss
    theirs.backward()

    loss, gradient = jax.value_and_grad(
        lambda d: d.loss(x, dictionaries.LossContext(jnp.asarray(dead), jnp.float32(1.0)))[0]
    )(ours)
    np.testing.assert_allclose(loss, theirs.item(), rtol=1e-5)
    # SAELens lets the auxiliary loss move b_dec through the encoder; the residual it explains holds b_dec constant.
    for name in NAMES if not n_dead else NAMES[:3]:
        got, want = getattr(gradient, name), getattr(peer, name).grad.numpy()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max(), err_msg=name)
