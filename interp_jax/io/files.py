"""Files that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import uuid


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a new name beside `path` to write a file under, and renames that file to `path` when it is written.

    What is at `path` stays until then, and for good if the writing fails; then the new file is removed.

    Args:
      path: the file. Its parents are made.

    Example:
      >>> import pathlib, tempfile
      >>> from interp_jax.io import files
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "a")
      ...     with files.replacing(path) as new:
      ...         written = new.write_text("whole")
      ...     path.read_text()
      'whole'
    """
    new = path.with_name(f".{path.name}.new-{uuid.uuid4().hex[:8]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
