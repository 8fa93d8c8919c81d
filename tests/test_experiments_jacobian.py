"""The Jacobian lens's experiment at small size: its order of lenses, its directions against random ones, its files."""

from dataclasses import replace
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from interp_jax import config, lens


@pytest.mark.long
def test_the_jacobian_lens_on_the_microworld(experiment, tmp_path: Path, capsys) -> None:
    script = experiment("jacobian_lens")
    cfg = config.load(script.Jacobian, "configs/jacobian_lens.toml", ())
    small = dict(n_tokens=6000, n_positions=32, n_texts=16, n_held=12, batch_size=8, n_steps=20, seeds=(0, 1))
    cfg = replace(cfg, **small, out=tmp_path / "out")
    with jax.numpy_dtype_promotion("standard"):  # as a user runs it; optax's own updates want it
        found = script.main(cfg)
    first, share, gain = found["first"], found["share"], found["gain"]
    assert all(values.shape == (2, 4) for values in (*share.values(), *gain.values()))
    assert first["Jacobian lens"].max() < first["logit lens"].min()
    for edit in ("steer", "ablate", "swap"):
        assert gain[f"{edit}, Jacobian"][:, 3].min() > 1 > np.abs(gain[f"{edit}, random"][:, 0]).max()
    saved = json.loads((cfg.out / "jacobian_lens.json").read_text())
    assert saved["config"]["seeds"] == [0, 1]
    np.testing.assert_allclose(saved["share"]["Jacobian lens"], share["Jacobian lens"])
    one = lens.load(cfg.out / "lens")
    assert one.J.shape == (4, 128, 128) and int(one.n_texts) == 16
    assert "Jacobian lens" in (cfg.out / "page.html").read_text()
    assert "plotly" in (cfg.out / "jacobian_lens.html").read_text()
    assert "the first to say the model's word" in capsys.readouterr().out


def test_the_first_layer_that_says_it(experiment) -> None:
    same = np.array([[False, True, False], [True, False, False], [True, True, False]])  # layer, position
    assert experiment("jacobian_lens").first_layer(same).tolist() == [1, 0, 3]
