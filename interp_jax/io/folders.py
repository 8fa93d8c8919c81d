"""Folders that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import shutil
import uuid


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a new name beside `path` to write a folder under, and renames that folder to `path` when it is written.

    What is at `path` stays until then. It stays for good if the writing or the renaming fails; then the new folder is
    removed.

    Args:
      path: an absolute path. Its parents are made.

    Example:
      >>> import pathlib, tempfile
      >>> from interp_jax.io import folders
      >>> with tempfile.TemporaryDirectory() as parent:
      ...     path = pathlib.Path(parent, "a")
      ...     with folders.replacing(path) as new:
      ...         new.mkdir()
      ...         there = path.exists()
      ...     there, path.exists()
      (False, True)
    """
    new, old = (path.with_name(f".{path.name}.{kind}-{uuid.uuid4().hex[:8]}") for kind in ("new", "old"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
