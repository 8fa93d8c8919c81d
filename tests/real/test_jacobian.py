"""The Jacobian lens on a real model: some rows of every layer beside torch's autograd."""

import numpy as np
import pytest

from interp_jax import lens, models
from tests.real.conftest import Real

pytestmark = pytest.mark.real
TEXT = "Once upon a time there was a little girl who liked to play in the park with her dog, and every day"


def test_rows_beside_torch(smollm: Real, smollm_peer) -> None:
    torch = pytest.importorskip("torch")
    from experiments.bench.torch_jacobian import by_batch

    model, config = smollm.model, smollm.model.config
    tokens = smollm.tokenizer.to_tokens(TEXT)[None]
    n = tokens.shape[1]
    start = lens.JacobianLens.create(config.d_model, config.n_layers, eps=config.norm_eps)
    one = lens.fit_jacobian(start, models.forward, model, [tokens], skip_first=4)
    wanted = by_batch(smollm_peer, torch.tensor(np.asarray(tokens)).long(), 4, n - 1, 3, n_rows=6).numpy()
    found = np.asarray(one.J[:, :6])
    assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()
