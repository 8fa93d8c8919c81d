"""What the commands write: checked before the work, whole or not at all."""

import os
from pathlib import Path
import tempfile


def check_writable(out: Path) -> None:
    """Raises OSError now rather than after minutes of work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"--out {out}: cannot be written ({error.strerror or error}); choose another folder") from None


def write(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
