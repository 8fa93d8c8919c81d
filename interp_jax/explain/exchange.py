"""Records of delphi's caches, and caches of records, so that either tool explains what the other has read."""

from pathlib import Path
from typing import Any

import numpy as np

from interp_jax.explain.records.recording import Kept, of_firings
from interp_jax.explain.records.records import Records
from interp_jax.io import delphi


def from_delphi(
    folder: str | Path,
    module: str,
    *,
    skip: Any = (),
    window: int = 64,
    n_top: int = 32,
    n_sampled: int = 4,
    seed: int = 0,
) -> Records:
    """Records of a cache that delphi made.

    Args:
      folder: with a folder of each module.
      module: such as "layers.5".
      skip: token ids that do not count; nothing fires on them in the cache if delphi left them out.
      window, n_top, n_sampled, seed: as of `record`.

    Returns:
      `Records` without what needs the model or the dictionary: logits, and decoder rows.

    Raises:
      FileNotFoundError, ValueError: as `io.delphi.load`.
    """
    cache = delphi.load(folder, module)
    mask = ~np.isin(cache.tokens, np.asarray(skip, np.int64))
    positive = (cache.values > 0) & mask[cache.rows, cache.positions]
    places = cache.rows * cache.tokens.shape[1] + cache.positions
    kept = Kept(min(window, cache.tokens.shape[1]), n_top, n_sampled, int(mask.sum()), seed)
    fired = (cache.features[positive], places[positive], cache.values[positive])
    return of_firings(module, (cache.n_features,), cache.tokens, mask, fired, kept)


def to_delphi(records: Records, folder: str | Path, *, module: str | None = None, **config: Any) -> None:
    """Writes the rows of which records hold all firings as a cache of delphi's; `record(n_held=)` says how many.

    Args:
      records: from `record`.
      folder: where to.
      module: its name there, by default that of the site.
      **config: what delphi's config says, such as `model_name="gpt2"`.

    Example:
      >>> import tempfile, jax
      >>> from interp_jax import explain, models
      >>> model, _ = models.load("microworld")
      >>> tokens = jax.random.randint(jax.random.key(0), (8, 12), 3, 641)
      >>> found = explain.record(models.forward, {"blocks.2.mlp.post": None})(model, tokens)["blocks.2.mlp.post"]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     explain.to_delphi(found, folder)
      ...     same = explain.from_delphi(folder, "blocks.2.mlp.post")
      >>> bool((same.counts == found.counts).all())
      True
    """
    rows, positions = np.divmod(records.held.places.astype(np.int64), records.held.shape[1])
    features = np.repeat(np.arange(records.n_units), records.held.counts)
    tokens = records.tokens[records.held_rows]
    cache = delphi.Cache(tokens, features, rows, positions, records.held.values, records.n_units, dict(config))
    delphi.save(folder, module or records.name, cache)
