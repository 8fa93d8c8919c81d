"""What the experiments share: a model, how far a run over seeds has come, what it has found so far, and its spread."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
import json
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax import models
from interp_jax.progress import Progress

DEEP = 16  # layers, above which a scan over them compiles much sooner than a loop


def open_model(name: Any) -> tuple[Any, Any]:
    """A model in float32 and its tokenizer."""
    model, tokenizer = models.load(name, dtype="float32")
    return (models.stack_layers(model) if model.config.n_layers > DEEP else model), tokenizer


def edges_add_up(model: Any) -> bool:
    """Whether its stream is the sum of what heads and MLPs write, one after the other, as edge attribution wants it."""
    return model.config.norms == "pre" and not model.config.parallel


def each(items: Sequence[Any], n_steps: int, what: str, study: Callable[..., Any], keep: Callable[[Any], None]) -> Any:
    """What `study(item, begin)` gives for each in turn, arrays by name, stacked; `keep` gets it after each.

    A study begins its `n_steps` steps by name.
    """
    done: list[Any] = []
    with Progress(what, len(items) * n_steps) as progress:
        for item in items:
            done.append(study(item, lambda step, item=item: progress.begin(f"{item}: {step}")))
            keep(_stacked(done))
    return _stacked(done)


def _stacked(parts: list[Any]) -> Any:
    named = isinstance(parts[0], dict)
    return {name: _stacked([part[name] for part in parts]) for name in parts[0]} if named else np.stack(parts)


def write(file: Path, cfg: Any, numbers: dict[str, Any]) -> None:
    """The settings and the numbers as JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"config": asdict(cfg)} | numbers, indent=1, default=lambda x: getattr(x, "tolist", x.__str__)())
    file.with_suffix(".new").write_text(text + "\n")
    file.with_suffix(".new").replace(file)


def spread(values: Any, axis: int = 0) -> Any:
    """The standard deviation over runs; nan of a single one."""
    values = np.asarray(values)
    return values.std(axis, ddof=1) if values.shape[axis] > 1 else np.full_like(values.mean(axis), np.nan)
