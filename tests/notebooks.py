"""Running a notebook, and what is compared of its outputs."""

import copy
from pathlib import Path
import re
from typing import Any

TUTORIALS = Path(__file__).resolve().parents[1] / "experiments" / "tutorials"
FIGURE = "application/vnd.plotly.v1+json"


def stored_and_run(path: Path) -> tuple[Any, Any]:
    """The notebook as it is stored, and as it is after a run from the top in its own folder."""
    import nbclient
    import nbformat

    stored = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        copy.deepcopy(stored),
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    return stored, client.execute()


def shown(notebook: Any) -> list[list[str]]:
    """What each cell shows: its text, without the digits of decimal numbers, and its figures by their kinds of traces.

    Of a cell with the tag `varies` only what sort of outputs it has: a dictionary that was trained on another machine
    has other features, and another version of jax other equations.
    """
    return [
        [_shown(output, "varies" in cell.metadata.get("tags", ())) for output in cell.get("outputs", [])]
        for cell in notebook.cells
    ]


def _shown(output: Any, varies: bool) -> str:
    data = output.get("data", {})
    if FIGURE in data:
        return f"figure of {', '.join(trace['type'] for trace in data[FIGURE]['data'])}"
    text = output.get("text") or data.get("text/plain")
    if text is None or varies:
        return f"{output['output_type']} {output.get('name', '')} {' '.join(sorted(data))}"
    return f"{output.get('name', '')} {' '.join(re.sub(r'[0-9]*[.][0-9]*', '_', text).split())}"


def has_warnings(notebook: Any) -> bool:
    return any(output.get("name") == "stderr" for cell in notebook.cells for output in cell.get("outputs", []))
