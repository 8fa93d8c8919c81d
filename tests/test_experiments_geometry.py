"""Shared geometry and heads over a corpus at tiny size: what is known of the microworlds comes out."""

import numpy as np
import pytest

pytestmark = pytest.mark.long


def test_two_microworlds_share_their_geometry(run, capsys) -> None:
    _, found, saved = run("shared_geometry", "Shared", seeds=(3, 4), n_texts=16, strengths=(0.5,), n_chosen=40)
    assert saved["config"]["seeds"] == [3, 4] and set(saved) == {"config", "geometry", "steering"}
    (numbers,) = found["geometry"].values()
    for name, pairs in numbers.items():
        values, chance = pairs.T
        assert values.shape == (2,) and (np.isnan(chance).all() or (values > chance + 0.05).all()), name
    odds = found["steering"]["French"]["log odds"]  # [seed vector strength prompt]
    assert odds.shape == (2, 5, 2, 16)
    rise = (odds[:, :, 1] - odds[:, :, 0]).mean((0, 2))  # carried, its own, by a mixed map, ...
    assert min(rise[:2]) > np.abs(rise[2:]).max(), rise
    np.testing.assert_allclose(found["steering"]["French"]["cosine with its own"][:, 1], 1, rtol=1e-4)
    assert "French: the carried vector does" in " ".join(capsys.readouterr().out.split())


def test_the_heads_of_the_microworld(run, capsys) -> None:
    cfg, found, saved = run("headvis", "Look", seeds=(0,), n_tokens=12_000, n_sequences=96)
    assert set(saved["text"]) == {
        "self", "previous", "induction", "entropy", "distance", "distance_variance", "not to the first",
    }  # fmt: skip
    assert np.shape(saved["text"]["induction"]) == (1, 4, 4) and cfg.seeds == (0,)
    previous, known = found["text"]["previous"][0], found["words said twice"]["previous"]
    assert previous.argmax() == known.argmax()
    assert found["words said twice"]["induction"].max() > 0.9
    page = (cfg.out / "heads.html").read_text()
    layer, head = np.unravel_index(previous.argmax(), previous.shape)
    assert f"Head {layer}.{head}" in page and "http" not in page
    assert "its place" in capsys.readouterr().out
