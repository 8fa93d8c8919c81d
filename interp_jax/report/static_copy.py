"""The dashboard as files that a browser opens without a server: the same pages, their data as scripts in parts.

A page of a file may not fetch, but it may load scripts. One file holds a part of the list or a few units, so that none
is large however many there are.
"""

from collections.abc import Iterator
import json
from pathlib import Path
import shutil
from typing import Any

from interp_jax.io.files import replacing
from interp_jax.progress import Progress
from interp_jax.report.board import CHUNK, SHARD, Board
from interp_jax.report.serving import BUNDLE, FILES, shell


def write_static(board: Board, out: str | Path) -> int:
    """Writes `index.html` and what it needs to a folder. Without the live box and the slider, which need the model.

    Returns:
      How many bytes the data have.
    """
    out, size = Path(out), 0
    parts = sum(-(-records.n_units // SHARD) for records in board.records.values())
    with Progress("writing pages", parts) as progress:
        for name, value in _data(board):
            progress.begin(name)
            script = f"interp_jax_data({json.dumps(name)},{json.dumps(value, separators=(',', ':'))});\n"
            with replacing(out / "data" / f"{name}.js") as new:
                size += new.write_text(script, encoding="utf-8")
    for name in FILES:
        shutil.copyfile(BUNDLE / name, out / name)
    with replacing(out / "index.html") as new:  # last: a folder that has it is whole
        new.write_text(shell(board.title, "files"), encoding="utf-8")
    return size


def _data(board: Board) -> Iterator[tuple[str, Any]]:
    """The name and the content of each file."""
    index = board.index()
    yield "board", index | {"live": False}
    for place, source in enumerate(index["sources"]):
        for chunk in range(-(-source["n_units"] // CHUNK)):
            yield f"{place}/list/{chunk}", board.listed(place, chunk)
        for start in range(0, source["n_units"], SHARD):
            some = range(start, min(start + SHARD, source["n_units"]))
            yield f"{place}/units/{start // SHARD}", [board.unit(place, unit) for unit in some]
    if board.heads is not None:
        yield "heads", board.heads.rows
        for layer, pages in enumerate(board.heads.pages):
            yield f"layer/{layer}", pages
