"""What holds of every page that a command writes: it is small, and a browser needs nothing else to show it."""

from collections.abc import Iterator
from pathlib import Path
import re

import pytest

LARGEST = 300_000  # bytes
OUTSIDE = re.compile(r"""(?:src|href)\s*=\s*["']?(?:\w+:)?//|url\(\s*["']?(?:\w+:)?//|@import|\bfetch\(\s*["'`]\w+:""")


@pytest.fixture(autouse=True)
def pages_are_small_and_whole(tmp_path: Path) -> Iterator[None]:
    yield
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert len(text.encode()) < LARGEST, f"{page.name} has {len(text)} characters"
        assert not (found := OUTSIDE.search(text)), f"{page.name} loads something: {found[0]}"
