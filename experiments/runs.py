"""What the experiments share: runs over seeds, a table of what they found, and the end of every script.

A script is read from top to bottom: its question, the run of one seed, the table, the figure. `each` makes the run of
every seed, `table` and `cell` make text of the numbers, `curve` draws them, and `finish` prints and writes it all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
import json
import math
from pathlib import Path
import textwrap
from typing import Any, Protocol

import jax
import numpy as np
import plotly.graph_objects as go
from scipy.stats import spearmanr

from interp_jax.progress import Progress

WIDTH = 110  # of a printed line of prose


class Settings(Protocol):
    """The configuration of an experiment: a frozen dataclass that says where its files go."""

    @property
    def out(self) -> Path: ...


def edges_add_up(model: Any) -> bool:
    """Whether the stream is the sum of what heads and MLPs write, one after the other, as edge attribution wants it."""
    return model.config.norms == "pre" and not model.config.parallel


def each(items: Sequence[Any], n_steps: int, what: str, study: Callable[..., Any], keep: Callable[[Any], None]) -> Any:
    """Studies one item after the other, with progress and the time left, and stacks what is found of each.

    Args:
      items: mostly seeds.
      n_steps: how many steps a study begins.
      what: the work, in a word or two.
      study: a function (item, begin) -> arrays by name, nested or not. It calls `begin(step)` before each of its steps.
      keep: gets what is stacked so far after each item, so that a run that is killed leaves something.
    """
    done: list[Any] = []
    with Progress(what, len(items) * n_steps) as progress:
        for item in items:
            done.append(study(item, lambda step, item=item: progress.begin(f"{item}: {step}")))
            keep(_stacked(done))
    return _stacked(done)


def _stacked(parts: list[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {name: _stacked([part[name] for part in parts]) for name in parts[0]}
    return np.stack(parts)


def spread(values: Any, axis: int = 0) -> Any:
    """The standard deviation over runs; nan of a single one."""
    values = np.asarray(values)
    return values.std(axis, ddof=1) if values.shape[axis] > 1 else np.full_like(values.mean(axis), np.nan)


def rank_correlation(x: Any, y: Any) -> float:
    """Spearman's correlation of two arrays of one shape, over all their entries."""
    return float(np.asarray(spearmanr(np.ravel(x), np.ravel(y)))[0])


def cell(values: Any, digits: int = 2) -> str:
    """Mean and spread of a number over runs, `0.52 ±0.03`; of a single run the number alone."""
    mean = f"{np.mean(values):z.{digits}f}"
    return f"{mean} ±{spread(values):.{digits}f}" if len(values) > 1 else mean


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows under the names of their columns: the first column to the left, the others to the right."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([str(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: list[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip()

    return "\n".join(map(line, lines))


def layer_table(what: str, curves: Mapping[str, Any]) -> str:
    """A row for each curve `[run layer]` under its name, a column for each layer."""
    rows = [
        {what: name} | {str(layer): cell(values) for layer, values in enumerate(np.transpose(of_runs))}
        for name, of_runs in curves.items()
    ]
    return table(rows)


def curve(figure: go.Figure, values: Any, x: Any = None, **look: Any) -> None:
    """Draws the mean over runs of `values` `[run x]`, with their spread as error bars."""
    figure.add_scatter(x=x, y=np.mean(values, axis=0), error_y={"array": spread(values)}, **look)


def write(name: str, cfg: Settings, numbers: Mapping[str, Any]) -> None:
    """The settings and the numbers as `name.json` in `cfg.out`, whole or not at all."""
    cfg.out.mkdir(parents=True, exist_ok=True)
    file, unfinished = cfg.out / f"{name}.json", cfg.out / f"{name}.new"
    unfinished.write_text(json.dumps(_plain({"config": asdict(cfg), **numbers}), indent=1) + "\n")
    unfinished.replace(file)


def _plain(value: Any) -> Any:
    """As JSON has it: arrays are lists, nan and infinity are null, paths and other things are words."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def finish(name: str, cfg: Settings, numbers: Mapping[str, Any], figure: go.Figure, *text: str) -> None:
    """The end of every experiment: writes `name.json` and `name.html` in `cfg.out`, and prints what was found.

    Args:
      name: of the experiment.
      cfg: its settings, which stand beside the numbers.
      numbers: all that was measured.
      figure: what is seen at a glance.
      *text: tables, printed as they are, and paragraphs of prose, one line each, which are wrapped here.
    """
    write(name, cfg, numbers)
    figure.write_html(cfg.out / f"{name}.html")
    for part in text:
        print(part if "\n" in part else textwrap.fill(part, WIDTH), end="\n\n")
    print(f"written: {cfg.out / name}.json, {cfg.out / name}.html")
