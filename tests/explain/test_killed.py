"""A pass that is killed goes on where it last saved, and gives the records of one that was not."""

from pathlib import Path
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from interp_jax import explain
from interp_jax.explain.records import files as records_files

pytestmark = pytest.mark.long
PASS = """
import sys, jax, time
from interp_jax import dictionaries, explain, models
from interp_jax.explain.records import recording
from interp_jax.explain.records import units
recording.SAVE_EVERY, slow, firing = 0.0, float(sys.argv[2]), units.firing
units.firing = lambda *args: (time.sleep(slow), firing(*args))[1]
model, _ = models.load("microworld", dtype="float32")
dictionary = dictionaries.TopK.create(jax.random.key(0), 128, 256, 8)
tokens = jax.random.randint(jax.random.key(1), (160, 24), 3, 641)
record = explain.record(models.forward, {"blocks.1.resid_post": dictionary}, folder=sys.argv[1], batch_size=4)
explain.save_records(sys.argv[1], record(model, tokens))
"""


def start(folder: Path, slow: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PASS, str(folder), str(slow)])


def test_kill_at_any_moment(tmp_path):
    assert start(tmp_path / "whole", 0.0).wait() == 0
    rng = random.Random(0)
    saved = tmp_path / "cut" / "unfinished.safetensors"
    for _ in range(3):
        process = start(tmp_path / "cut", 0.05)
        before = saved.stat().st_mtime if saved.exists() else 0.0
        while process.poll() is None and not (saved.exists() and saved.stat().st_mtime > before):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.3))
        assert process.poll() is None, "it was through before it was killed"
        process.kill()
        process.wait()
    assert saved.exists() and not (tmp_path / "cut" / "card.json").exists()
    assert start(tmp_path / "cut", 0.0).wait() == 0
    assert not saved.exists()
    one, other = (explain.load_records(tmp_path / name)["blocks.1.resid_post"] for name in ("whole", "cut"))
    a, b = (records_files.flat("", x) for x in (one, other))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, err_msg=name)
