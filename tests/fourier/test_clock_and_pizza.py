"""The experiment on the real models, against what their authors' own notebook prints of one of them."""

from dataclasses import replace
import itertools
import json
from pathlib import Path
import random
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import config, fourier
from interp_jax.io import torch_files

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
    assert abs(fourier.distance_irrelevance(fourier.correct_logits(logits)).item() - 0.17173645661473538) < 1e-5
    random.Random(42).shuffle(triples)
    symmetry = fourier.gradient_symmetry(script.forward)(params, np.array(triples[:100])).mean().item()
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
def test_the_experiment(script, folder: Path, tmp_path: Path, capsys) -> None:
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
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{name}: 100.0% of the 3481 sums modulo 59 are right" for name in (PIZZA, CLOCK)]
    rows = [line.split() for line in lines[4:6]]
    assert [(row[0], row[2], row[-1]) for row in rows] == [(PIZZA, "100.0%", "pizza"), (CLOCK, "100.0%", "clock")]
    shares = [line.split() for line in lines[8:]]
    assert [row[0] for row in shares] == [PIZZA] * 6 + [CLOCK] * 4 and len({len(row) for row in shares}) == 1


def test_a_model_that_does_not_add_is_neither(script, folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """The clock with its neurons shuffled: its circles are there as they were, and its sums are wrong."""

    def shuffled(folder: Path, name: str) -> dict:
        params = load(folder, name)
        return params | {"mlp.W_out": params["mlp.W_out"][:, ::-1]}

    load = script.load
    monkeypatch.setattr(script, "load", shuffled)
    cfg = replace(config.load(script.ClockAndPizza, "configs/clock_and_pizza.toml", ()), data=folder, out=tmp_path)
    numbers = script.main(replace(cfg, models=(CLOCK,)))
    assert numbers[CLOCK]["accuracy"] < 0.1 and numbers[CLOCK]["verdict"] == "neither: does not add"
    assert not (tmp_path / "figure.html").exists()
    out = capsys.readouterr().out
    assert out.startswith(f"{CLOCK}: {numbers[CLOCK]['accuracy']:.1%} of the 3481 sums modulo 59 are right\n")
    assert "neither: does not add" in out
    for wrong in ({"models": ()}, {"seeds": (0,)}):
        with pytest.raises(ValueError, match="give at least one model, and two seeds"):
            script.main(replace(cfg, **wrong))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_layers": 2}, "n_layers is 2; the model that is run here has 1"),
        ({"act_fn": "GeLU"}, "act_fn is 'GeLU'; the model that is run here has 'ReLU'"),
        ({"funcs": "lambda x: (x[0]*x[1])%59"}, "funcs is "),
        ({"C": 61}, "funcs is "),
        ({"C": 61, "funcs": "lambda x: (x[0]+x[1])%61"}, r"embed.W_E has shape \[128, 59\]; to add modulo 61 takes"),
        ({"eqn_sign": 1}, "eqn_sign is 1; the model that is run here has 0"),
        ({"attn_coeff": None}, "attn_coeff is None, not a number"),
    ],
)
def test_settings_of_another_model_are_refused(script, folder: Path, tmp_path: Path, settings, says) -> None:
    shutil.copy(folder / f"model_{CLOCK}.pt", tmp_path)
    about = json.loads((folder / f"config_{CLOCK}.json").read_text()) | settings
    (tmp_path / f"config_{CLOCK}.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=says) as caught:
        script.load(tmp_path, CLOCK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w | {"blocks.1.mlp.b_in": np.zeros(512)}, "has 2 layers; the model that is run here has one"),
        (lambda w: w | {"blocks.0.ln1.w": np.zeros(128)}, "has ln1.w; the model that is run here has embed.W_E"),
        (lambda w: {name: x for name, x in w.items() if "b_out" not in name}, "lacks mlp.b_out"),
        (lambda w: w | {"pos_embed.W_pos": np.zeros((3, 128))}, r"shape \[3, 128\]; .* takes \[2, 128\]"),
        (lambda w: w | {"unembed.W_U": np.zeros((128, 60))}, r"shape \[128, 60\]; .* takes \[128, 59\]"),
        (lambda w: w | {"blocks.0.attn.W_O": np.zeros((128, 96))}, r"shape \[128, 96\]; .* takes \[128, 128\]"),
        (lambda w: w | {"blocks.0.mlp.b_in": np.zeros((512, 1))}, r"shape \[512, 1\]; .* takes \[512\]"),
    ],
)
def test_arrays_of_another_model_are_refused(folder: Path, experiment, change, says) -> None:
    arrays = torch_files.read(folder / f"model_{CLOCK}.pt")
    settings = json.loads((folder / f"config_{CLOCK}.json").read_text())
    check = experiment("clock_and_pizza_models").check
    check(CLOCK, settings, arrays)
    with pytest.raises(ValueError, match=f"^model_{CLOCK}.pt: .*{says}") as caught:
        check(CLOCK, settings, change(dict(arrays)))
    assert "\n" not in str(caught.value)


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "experiments/clock_and_pizza.py",
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "No such file" in ended.stderr
