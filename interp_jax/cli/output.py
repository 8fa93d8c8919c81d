"""Files that commands write: that they can be written is checked before the work, and each is whole or not there."""

from pathlib import Path
import tempfile

from interp_jax.io.files import replacing


def check_writable(out: Path) -> None:
    """Makes the folder, and raises OSError where it cannot be written, before minutes of work rather than after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"--out {out}: cannot be written ({error.strerror or error}); choose another folder") from None


def write(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")
