"""Training losses and their gradients beside SAELens's training classes, on the same random weights."""

from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sae_lens")

from interp_jax import dictionaries  # noqa: E402

pytestmark = pytest.mark.parity

D_IN, D_SAE = 8, 24
AFFINE = ("W_enc", "b_enc", "W_dec", "b_dec")
DEAD = np.arange(D_SAE) < 11  # more than k_aux = d_in / 2, where SAELens's scale is 1


def random(made: Any) -> Any:
    """The dictionary with every weight random and decoder rows of unit norm."""
    fixed = ("bandwidth", "threshold", "limit", "mean_norm", "folded_norms")
    names = [f.name for f in fields(made) if not f.metadata.get("static") and f.name not in fixed]
    keys = jax.random.split(jax.random.key(1), len(names))
    arrays = {n: getattr(made, n) for n in names}
    arrays = {n: a + 0.3 * jax.random.normal(k, a.shape) for k, (n, a) in zip(keys, arrays.items(), strict=True)}
    return replace(made, **arrays).normalized()


def run(peer: Any, ours: Any, coefficients: dict[str, float]) -> tuple[Any, Any, Any]:
    """SAELens's output with its gradients taken, our loss with terms, and our gradient."""
    from sae_lens.saes.sae import TrainStepInput

    x = np.asarray(jax.random.normal(jax.random.key(9), (32, D_IN)) + 0.4)
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            weight.copy_(torch.tensor(np.asarray(getattr(ours, name))))
    step = TrainStepInput(torch.tensor(x), coefficients, torch.tensor(DEAD), 0, False)
    output = peer.training_forward_pass(step)
    output.loss.backward()
    weight = jnp.float32(next(iter(coefficients.values()), 0.0))

    def loss(d: Any) -> Any:
        return d.loss(jnp.asarray(x), dictionaries.LossContext(jnp.asarray(DEAD), jnp.float32(1.0), weight))

    return output, *jax.value_and_grad(loss, has_aux=True)(ours)


def same_gradients(gradient: Any, peer: Any, names: tuple[str, ...]) -> None:
    for name in names:
        got, want = np.asarray(getattr(gradient, name)), getattr(peer, name).grad.numpy()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(want).max()), err_msg=name)


@pytest.mark.parametrize("form", ["towards", "april_2024"])
def test_relu(form: str) -> None:
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig

    ours = random(dictionaries.ReLU.create(jax.random.key(0), D_IN, D_SAE, form=form))
    peer = StandardTrainingSAE(StandardTrainingSAEConfig(D_IN, D_SAE, apply_b_dec_to_input=form == "towards"))
    output, (loss, terms), gradient = run(peer, ours, {"l1": 0.7})
    np.testing.assert_allclose(loss, output.loss.item(), rtol=1e-5)
    np.testing.assert_allclose(0.7 * terms["sparsity"], output.losses["l1_loss"].item(), rtol=1e-5)
    same_gradients(gradient, peer, AFFINE)


def test_jumprelu() -> None:
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig

    ours = random(dictionaries.JumpReLU.create(jax.random.key(0), D_IN, D_SAE, threshold=0.5, bandwidth=0.4))
    peer = JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(D_IN, D_SAE, apply_b_dec_to_input=False, jumprelu_bandwidth=0.4)
    )
    output, (loss, terms), gradient = run(peer, ours, {"l0": 0.7})
    np.testing.assert_allclose(loss, output.loss.item(), rtol=1e-5)
    np.testing.assert_allclose(0.7 * terms["sparsity"], output.losses["l0_loss"].item(), rtol=1e-5)
    same_gradients(gradient, peer, AFFINE)
    want = peer.threshold.grad.numpy()
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(gradient.threshold, want, rtol=1e-4, atol=1e-4)


def test_gated() -> None:
    from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig

    ours = random(dictionaries.Gated.create(jax.random.key(0), D_IN, D_SAE))
    peer = GatedTrainingSAE(GatedTrainingSAEConfig(D_IN, D_SAE, apply_b_dec_to_input=True))
    output, (loss, terms), gradient = run(peer, ours, {"l1": 0.7})
    np.testing.assert_allclose(loss, output.loss.item(), rtol=1e-5)
    np.testing.assert_allclose(terms["frozen"], output.losses["auxiliary_reconstruction_loss"].item(), rtol=1e-5)
    # SAELens does not freeze the decoder in the gate's reconstruction, as the paper does.
    same_gradients(gradient, peer, ("W_enc", "b_gate", "b_mag", "r_mag"))


@pytest.mark.parametrize("kind", ["BatchTopK", "Matryoshka"])
def test_batchtopk_and_matryoshka(kind: str) -> None:
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
    )

    options = {"k": 3, "apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": False}
    widths = {} if kind == "BatchTopK" else {"widths": (6, 12, 24)}
    if kind == "BatchTopK":
        peer = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(D_IN, D_SAE, **options))
    else:
        config = MatryoshkaBatchTopKTrainingSAEConfig(D_IN, D_SAE, matryoshka_widths=[6, 12, 24], **options)
        peer = MatryoshkaBatchTopKTrainingSAE(config)
    ours = random(getattr(dictionaries, kind).create(jax.random.key(0), D_IN, D_SAE, 3, **widths))
    ours = replace(ours, threshold=jnp.array(0.3))
    peer.topk_threshold.fill_(0.3)
    output, (loss, terms), gradient = run(peer, ours, {})
    np.testing.assert_allclose(loss, output.loss.item(), rtol=1e-5)
    np.testing.assert_allclose(terms["aux"], output.losses["auxiliary_reconstruction_loss"].item(), rtol=1e-5)
    np.testing.assert_allclose(ours.stepped(terms).threshold, peer.topk_threshold.item(), rtol=1e-5)
    # SAELens lets the auxiliary loss move b_dec through the encoder; the residual it explains holds b_dec constant.
    same_gradients(gradient, peer, AFFINE[:3])
