"""Whatever is saved as a Hugging Face folder, transformers loads, and it gives the same logits or hidden states."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from interp_jax import models  # noqa: E402
from interp_jax.models import saving  # noqa: E402
from tests.models.conftest import FAMILY, random_model  # noqa: E402
from tests.models.test_saving import CHANGES, SHORT, changed  # noqa: E402

pytestmark = pytest.mark.parity
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 8))


def check(folder: Path, model: Any) -> None:
    kind = transformers.AutoModel if model.config.headless else transformers.AutoModelForCausalLM
    if model.config.family == "bert" and not model.config.headless:
        kind = transformers.AutoModelForMaskedLM
    peer = kind.from_pretrained(folder, attn_implementation="eager").eval()
    assert type(peer).__name__ in (folder / "config.json").read_text()
    with torch.no_grad():
        out = peer(torch.tensor(TOKENS))
    want = out.last_hidden_state if model.config.headless else out.logits
    scan = models.stack_layers(model)  # which compiles sooner
    got = models.hidden(scan, TOKENS) if model.config.headless else models.forward(scan, TOKENS)
    np.testing.assert_allclose(got, want.numpy(), atol=2e-4)


@pytest.mark.parametrize(
    "family", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in FAMILY]
)
def test_every_field(family: str, tmp_path: Path) -> None:
    checked = 0
    for name, changes in CHANGES.items():
        for i, change in enumerate(changes):
            config = changed(FAMILY[family], change)
            if config is None or saving._lost(config):
                continue
            model, folder = random_model(config), tmp_path / f"{name}{i}"
            models.save(folder, model, format="huggingface")
            try:
                check(folder, model)
            except Exception as error:
                raise AssertionError(f"{name}: {change}") from error
            checked += 1
    assert checked >= 5
