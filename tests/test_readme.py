"""README and the pages of rooms keep their word: scripts run, links lead somewhere, the table names every site."""

from pathlib import Path
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(path for path in (ROOT / "interp_jax").glob("*/README.md"))
SHORTER = {"n_steps=1000": "n_steps=10", "text(0, 4000)": "text(0, 200)", "batch_size=1024": "batch_size=128"}


def script(page: str) -> str:
    """The Python of a page, one script from its first line to its last, with less to do."""
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    return code


def test_the_script_prints_what_it_says(capsys) -> None:
    said = re.search(r"```python(?:(?!```python).)*?```\s+```\n(.*?)```", README, re.DOTALL).group(1)
    exec(compile(script(README), "README.md", "exec"), {})
    printed = np.loadtxt(capsys.readouterr().out.splitlines())
    np.testing.assert_allclose(printed, np.loadtxt(said.splitlines()), atol=0.3)  # bfloat16


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_script_of_a_page_prints_what_it_says(page: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)  # it saves a dictionary
    text = page.read_text(encoding="utf-8")
    exec(compile(script(text), str(page), "exec"), {"__name__": "page"})
    said = re.findall(r"```python(?:(?!```).)*```\s+```\n(.*?)```", text, re.DOTALL)
    assert "".join(said) in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "experiments" / "README.md", *PAGES):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_site_is_in_the_table() -> None:
    page = (ROOT / "interp_jax" / "models" / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| site \|.*?\n\n", page, re.DOTALL).group()
    said = re.findall(r"`([\w.]+)`", table)  # a name that begins with a dot continues the one before it
    sizes = dict(n_layers=2, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
    rotary = dict(positions="rotary", gated=True, norm="rmsnorm", norms="both", qk_norm="head")
    encoder = dict(n_types=2, norms="residual")
    for kind, options in ((models.Decoder, {}), (models.Decoder, rotary), (models.Encoder, encoder)):
        model = kind.create(jax.random.key(0), models.Config(**sizes, **options))
        names = ij.sites(models.forward, model, jnp.zeros((1, 4), jnp.int32))
        missing = [name for name in names if not any(name == s or s[0] == "." and name.endswith(s) for s in said)]
        assert not missing, missing
