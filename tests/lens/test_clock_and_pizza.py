"""The experiment on the real models, against what their authors' own notebook prints of one of them."""

from dataclasses import replace
import itertools
import json
from pathlib import Path
import random

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import config, lens

ROOT = Path(__file__).resolve().parents[2]
P, PIZZA, CLOCK = 59, "p99zdpze5l", "q9rsl94xlv"


@pytest.fixture(scope="module")
def script(experiment):
    return experiment("clock_and_pizza")


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    if not (real_data / "modular-addition").is_dir():
        pytest.skip(f"no models: {real_data / 'modular-addition'} is not there")
    return real_data / "modular-addition"


@pytest.mark.long
def test_the_authors_numbers_of_their_model_a(script, folder: Path) -> None:
    """code/eval-main.ipynb of github.com/fjzzq2002/pizza prints them; its 100 triples are Python's shuffle of 42."""
    params = script.load(folder, PIZZA)
    triples = list(itertools.product(range(P), repeat=3))
    logits = script.forward(params, jnp.array(triples[::P])[:, :2]).reshape(P, P, P)
    assert abs(lens.distance_irrelevance(lens.correct_logits(logits)).item() - 0.17173645661473538) < 1e-5
    random.Random(42).shuffle(triples)
    symmetry = lens.gradient_symmetry(script.forward, params, np.array(triples[:100])).mean().item()
    assert abs(symmetry - 0.9936651682853699) < 1e-5


def test_the_sites_of_a_guest(script, folder: Path) -> None:
    params, tokens = script.load(folder, CLOCK), jnp.array([[3, 4], [58, 58]])
    logits, acts = ij.capture(script.forward, "*")(params, tokens)
    assert logits.argmax(-1).tolist() == [7, 57]
    pattern = acts["blocks.attn.pattern"]
    assert pattern.shape == (1, 2, 4, 2, 2)
    np.testing.assert_allclose(pattern.sum(-1), 1, rtol=1e-5)
    swapped = ij.intervene(script.forward, {"embed": lambda x: x[:, ::-1]})(params, tokens)
    np.testing.assert_allclose(swapped, script.forward(params, tokens[:, ::-1]), atol=1e-4)


@pytest.mark.long
def test_the_experiment(script, folder: Path, tmp_path: Path) -> None:
    cfg = replace(config.load(script.ClockAndPizza, "configs/clock_and_pizza.toml", ()), data=folder, out=tmp_path)
    script.main(replace(cfg, seeds=(0, 1), n_triples=100))
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    pizza, clock = numbers[PIZZA], numbers[CLOCK]
    assert (pizza["verdict"], clock["verdict"]) == ("pizza", "clock")
    assert pizza["accuracy"] == clock["accuracy"] == 1
    # The paper: circles of steps 7, 20 and 4 (frequencies are their inverses), and accompanying ones at twice those.
    keys = list(map(int, pizza["key_frequencies"]))
    assert sorted(keys[:3]) == sorted(min(k, P - k) for k in (pow(7, -1, P), pow(20, -1, P), pow(4, -1, P)))
    assert {min(2 * k % P, -2 * k % P) for k in keys[:3]} == set(keys[3:])
    alone = pizza["correlation_of_a_circle_alone_with"]
    for k in keys[:3]:  # explained, as the paper has it (2 r - 1): 98.3 to 98.4 % and 75.4 to 75.6 %
        assert 2 * alone["pizza"][str(k)] - 1 > 0.98
        assert abs(2 * alone["clock"][str(k)] - 1 - 0.755) < 0.02
    page = (tmp_path / "figure.html").read_text()
    assert "plotly.js" in page and f"{PIZZA}, pizza" in page
