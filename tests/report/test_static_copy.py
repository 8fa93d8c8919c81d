"""The dashboard as files, what was said of units, and the colours."""

from dataclasses import replace
import html
import json
import re

import pytest

from interp_jax import report
from interp_jax.report import board as boards
from interp_jax.report.serving import BUNDLE

CAT = 2


def read(path):
    """The name and the value that a file of data gives."""
    text = path.read_text(encoding="utf-8")
    found = re.fullmatch(r"interp_jax_data\((.*)\);\n", text, re.DOTALL)
    assert found and text.isascii()  # a script has other ends of lines than JSON
    return json.loads(f"[{found[1]}]")


def test_a_static_copy_has_what_the_server_gives(board, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("interp_jax.report.board.SHARD", 3)
    monkeypatch.setattr("interp_jax.report.static_copy.SHARD", 3)
    size = report.write_static(board, tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    data = [f"data/{i}/units/{j}.js" for i in range(2) for j in range(3)] + ["data/0/list/0.js", "data/1/list/0.js"]
    data += ["data/board.js", "data/heads.js", "data/layer/0.js"]
    assert files == sorted([*data, "app.css", "app.js", "index.html"])
    assert size == sum((tmp_path / name).stat().st_size for name in data)
    assert read(tmp_path / "data/0/units/0.js") == ["0/units/0", [board.unit(0, unit) for unit in range(3)]]
    assert read(tmp_path / "data/0/list/0.js")[1] == board.listed(0, 0)
    name, index = read(tmp_path / "data/board.js")
    assert name == "board" and not index["live"] and index["shard"] == 3
    page = html.unescape((tmp_path / "index.html").read_text())
    assert 'data-mode="files"' in page and "default-src 'none'" in page


def test_a_long_list_is_in_parts(board, monkeypatch) -> None:
    monkeypatch.setattr(boards, "CHUNK", 5)
    assert board.index()["sources"][0]["n_chunks"] == 2
    whole = board.listed(0, 0)["maximum"] + board.listed(0, 1)["maximum"]
    assert whole == [0, 2, 3, 4, 5, 6, 7, 0] and board.listed(0, 1)["start"] == 5


def test_heads_are_kept(head_list, tmp_path) -> None:
    head_list.save(tmp_path / "heads.json")
    again = report.HeadList.load(tmp_path / "heads.json")
    assert again.rows == head_list.rows
    assert json.loads(json.dumps(head_list.pages)) == again.pages
    (tmp_path / "heads.json").write_text("[]")
    with pytest.raises(ValueError, match="no list of heads"):
        report.HeadList.load(tmp_path / "heads.json")


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def mixed(over: str, under: str, share: float) -> str:
    one, two = ([int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (over, under))
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_read(theme: int) -> None:
    """WCAG 2.2: at least 4.5 between text and what is behind it, 3 for what is drawn."""
    style = (BUNDLE / "app.css").read_text()
    pairs = dict(re.findall(r"--([\w-]+): ?light-dark\(([^)]*)\)", style))
    colour = {name: [c.strip() for c in both.split(",")][theme] for name, both in pairs.items()}
    colour = {k: "#" + "".join(2 * d for d in c[1:]) if len(c) == 4 else c for k, c in colour.items()}
    most = float(re.findall(r"--most: ?(\.\d+)", style)[theme])
    colour["hottest"] = mixed(colour["heat"], colour["card"], 0.1 + most)
    texts = [("ink", "page"), ("ink", "card"), ("soft", "page"), ("soft", "card"), ("up", "page"), ("up", "card")]
    texts += [("up", "up-bar"), ("down", "down-bar"), ("ink", "plain-bar"), ("ink", "hottest"), ("wrong", "page")]
    for least, several in ((4.5, texts), (3.0, [("edge", "card"), ("edge", "page"), ("up", "page")])):
        for one, other in several:
            low, high = sorted((luminance(colour[one]), luminance(colour[other])))
            assert (high + 0.05) / (low + 0.05) >= least, (one, other)


def test_a_copy_without_heads_or_explanations(board, tmp_path) -> None:
    report.write_static(replace(board, heads=None, explanations=(), live=None), tmp_path)
    assert not (tmp_path / "data" / "heads.js").exists()
    assert not read(tmp_path / "data/board.js")[1]["heads"]
