"""What the files hold: read in little memory, the same weights and logits as transformers', saved and read again."""

from pathlib import Path
import subprocess
import sys

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models
from tests.real.conftest import Real

pytestmark = pytest.mark.real
TEXT = "When Mary and John went to the store, John gave a drink to Mary. She paid 12,345 yen — gracias! 🙂"
PEAK = """
import jax, resource, sys
from interp_jax import models
jax.numpy.zeros(3).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model, _ = models.load(sys.argv[1], dtype=sys.argv[2], scan_layers=True)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(peak * 1024, sum(leaf.nbytes for leaf in jax.tree.leaves(model)))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_the_memory_of_the_result(smollm: Real, dtype: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(smollm.path), dtype], capture_output=True, text=True, check=True
    )
    peak, size = map(int, done.stdout.split())
    assert size == 134_515_008 * jnp.dtype(dtype).itemsize
    assert peak < 1.15 * size + 60e6, (peak, size)  # 60 MB: jax's own, the tokenizer, some rows


@pytest.mark.parity
@pytest.mark.parametrize("name", ["smollm", "gemma"])
def test_logits_are_those_of_transformers(name: str, request: pytest.FixtureRequest) -> None:
    torch = pytest.importorskip("torch")
    loaded, peer = request.getfixturevalue(name), request.getfixturevalue(f"{name}_peer")
    tokens = np.array([loaded.tokenizer.encode(TEXT)])
    with torch.no_grad():
        want = peer(torch.tensor(tokens)).logits.numpy()
    for model in (loaded.model, models.unstack_layers(loaded.model)):
        np.testing.assert_allclose(model(tokens), want, atol=1e-4)


@pytest.mark.parametrize("name", ["smollm", "gemma"])
def test_padding_on_both_sides(name: str, request: pytest.FixtureRequest) -> None:
    loaded = request.getfixturevalue(name)
    tokens, mask, last = models.tokenize(loaded.tokenizer, [TEXT, "The capital of France is"])
    alone = models.forward(loaded.model, np.array(loaded.tokenizer.encode("The capital of France is")))[-1]
    for row, real, at in ((tokens, mask, last), (np.roll(tokens, -2, 1), np.roll(mask, -2, 1), last - 2)):
        got = models.forward(loaded.model, row[1:], attention_mask=real[1:], logits_at=at[1:])[0]
        np.testing.assert_allclose(got, alone, atol=1e-4)


def test_it_travels_as_a_hugging_face_folder(smollm: Real, tmp_path: Path) -> None:
    models.save(tmp_path / "model", smollm.model, smollm.tokenizer)
    again, tokenizer = models.load(tmp_path / "model", scan_layers=True)
    assert again.config == smollm.model.config
    chex.assert_trees_all_equal(again, smollm.model)
    assert tokenizer.encode(TEXT) == smollm.tokenizer.encode(TEXT)
    assert tokenizer.templates == smollm.tokenizer.templates
