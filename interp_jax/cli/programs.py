"""Compiled programs, kept from one run of the command line to the next."""

import os
from pathlib import Path
from typing import Any

import jax

_LARGEST = 1 << 30  # bytes that the folder may have; beyond that, what was used longest ago is removed


def keep() -> None:
    """Lets jax keep what it compiles in the user's cache, so that only the first run of a command compiles.

    A folder that the user has named (`JAX_COMPILATION_CACHE_DIR`) is left as it is, and so is a cache that the user has
    turned off (`JAX_ENABLE_COMPILATION_CACHE=false`).
    """
    config: Any = jax.config
    if not config.jax_enable_compilation_cache or config.jax_compilation_cache_dir:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "interp_jax" / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to: every run compiles
        return
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_compilation_cache_max_size", _LARGEST)
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
