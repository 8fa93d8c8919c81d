"""The shipped models: named, versioned, small, and never changed."""

import hashlib
import json

import pytest

from interp_jax import models
from interp_jax.models.loading import SHIPPED

MANIFEST = json.loads((SHIPPED / "manifest.json").read_text())
MEGABYTE = 1_000_000


@pytest.mark.parametrize("name", MANIFEST)
def test_a_version_never_changes(name: str) -> None:
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (SHIPPED / name).iterdir()}
    assert files == MANIFEST[name]["files"], f"{name}: what is shipped never changes; ship it as another version"


def test_every_folder_has_its_version() -> None:
    assert {folder.name for folder in SHIPPED.iterdir() if folder.is_dir()} == set(MANIFEST)


def test_they_are_small_and_in_bfloat16() -> None:
    weights = {name: (SHIPPED / name / "model.safetensors").stat().st_size for name in MANIFEST}
    assert max(weights.values()) <= 8 * MEGABYTE
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*")) <= 40 * MEGABYTE
    for name in MANIFEST:
        model, tokenizer = models.load(name)
        assert model.dtype == "bfloat16" and tokenizer is not None


def test_a_version_is_part_of_the_name() -> None:
    version = MANIFEST["microworld"]["version"]
    assert models.load(f"microworld@{version}")[0].config == models.load("microworld")[0].config
    for other in ("0", "latest", f"{version}.0"):
        with pytest.raises(FileNotFoundError, match=f"'microworld@{other}'.*ships version {version}.*microworld@"):
            models.load(f"microworld@{other}")
