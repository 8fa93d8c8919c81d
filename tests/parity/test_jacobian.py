"""The Jacobian lens beside a plain loop of torch's autograd over the same weights in transformers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from experiments.bench.peers import peer_of  # noqa: E402
from experiments.bench.torch_jacobian import by_batch, by_vmap  # noqa: E402
from interp_jax import lens, models  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("kind", ["gpt2", "llama gqa", "qwen3", "gemma2"])
@pytest.mark.parametrize("scanned", [False, True])
def test_the_same_lens(kind: str, scanned: bool, tmp_path) -> None:
    peer = peer_of(kind)
    peer.save_pretrained(tmp_path)
    model, _ = models.load(tmp_path, scan_layers=scanned)
    tokens = np.random.default_rng(0).integers(0, 61, (3, 20))
    start = lens.JacobianLens.create(model.config.d_model, model.config.n_layers)
    found = lens.fit_jacobian(start, models.forward, model, tokens[:, None])
    for way in (by_batch, by_vmap):
        each = [way(peer, torch.tensor(text)[None], 16, 19, 7).numpy() for text in tokens]
        np.testing.assert_allclose(found.J, np.mean(each, 0), rtol=1e-3, atol=2e-4)
