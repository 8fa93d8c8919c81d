"""A folder is written whole or not at all, and what it replaces stays until then."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from interp_jax.io import folders, orbax, sae_lens

CONFIG = {"architecture": "standard", "d_in": 2, "d_sae": 4, "metadata": {"sae_lens_version": "6.0.0"}}
WRITERS = {
    "orbax": (lambda path, x: orbax.save(path, {"x": x}, {}), lambda path: orbax.load(path)[0]["x"]),
    "sae_lens": (lambda path, x: sae_lens.write(path, {"x": x}, CONFIG), lambda path: sae_lens.read(path)[0]["x"]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_there_stays_where_the_new_one_cannot_take_its_place(name, tmp_path, monkeypatch) -> None:
    write, read = WRITERS[name]
    path = tmp_path / "a"
    write(path, jnp.ones(2))
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError("no")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(OSError, match="no"):
            write(path, jnp.zeros(2))
    assert read(path).tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_nothing_is_there_after_a_failure(tmp_path) -> None:
    with pytest.raises(KeyError), folders.replacing(tmp_path / "deep" / "a") as new:
        new.mkdir()
        raise KeyError
    assert list((tmp_path / "deep").iterdir()) == []
