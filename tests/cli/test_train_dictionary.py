"""`interp-jax train-dictionary`: sweeps of every shape of kind, a run that goes on, one line for bad input."""

import json
from pathlib import Path

import pytest

from interp_jax import dictionaries
from interp_jax.cli import main

CONFIG = """
out = "{out}"
d_sae = [32]
n_tokens = 3000
n_positions = 24
n_steps = 12
batch_size = 64
{rest}
"""


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command on a file of its own; gives the folder, the exit code, and what was said of the error."""

    def run(rest="", *words):
        file, out = tmp_path / "run.toml", tmp_path / "out"
        file.write_text(CONFIG.format(out=out, rest=rest))
        try:
            main(["train-dictionary", "--config", str(file), *words])
            code = 0
        except SystemExit as stop:
            code = stop.code
        return Path(out), code, capsys.readouterr().err.strip()

    return run


@pytest.mark.long
def test_a_sweep(run):
    out, code, said = run('kind = "topk"\nk = [2, 4]\nseeds = [0, 1]', "--d-sae", "16", "32")
    assert code == 0, said
    scores = json.loads((out / "scores.json").read_text())
    assert len(scores) == 8
    made = dictionaries.load(out / "topk-d_sae-16-k-4-seed-1")
    assert (made.d_in, made.d_sae, made.k, made.limit) == (128, 16, 4, None)
    about = dictionaries.load_metadata(out / "topk-d_sae-16-k-4-seed-1")
    assert about["member"] == {"d_sae": 16, "k": 4, "sparsity": None, "seed": 1}
    assert about["site"] == "blocks.2.resid_post"
    assert len(about["normalisation"]) == 1
    assert 0 < scores["topk-d_sae-16-k-4-seed-1"]["fvu"] < 1.5
    assert len(list((out / "tensorboard").rglob("events.out.*"))) == 8


@pytest.mark.long
@pytest.mark.parametrize(
    "rest",
    [
        'kind = "relu"\nsparsity = [1.0, 5.0]\nresample_at = [6]\nsettings = {form = "towards"}',
        'kind = "archetypal"\nk = [2]\nsettings = {delta = 0.5, n_points = 50}',
        'kind = "skip_transcoder"\nsite = "blocks.1.mlp_in"\nsite_out = "blocks.1.mlp_out"',
        'kind = "crosscoder"\nsite = "blocks.resid_post"',
        'kind = "clt"\nsite = "blocks.mlp_in"\nsite_out = "blocks.mlp_out"',
        'kind = "gated"\nsite = "blocks.0.attn.z"',
    ],
)
def test_every_shape_of_kind(run, rest):
    out, code, said = run(rest)
    assert code == 0, said
    scores = json.loads((out / "scores.json").read_text())
    for name, numbers in scores.items():
        assert 0 < numbers["fvu"] < 2, numbers
        dictionaries.load(out / name)


@pytest.mark.long
def test_a_run_that_was_cut_off_goes_on(run, monkeypatch):
    from interp_jax.cli import train_dictionary

    rest = 'kind = "tied"\nresample_at = [7]\ncheckpoint_every = 5'
    whole = dictionaries.load(run(rest)[0] / "tied")

    saved = train_dictionary._checkpoint

    def cut_off(cfg, states):
        saved(cfg, states)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_dictionary, "_checkpoint", cut_off)
        out, code, _ = run(rest.replace("5", "5\nseeds = [0]"), "--out", str(run()[0].with_name("other")))
        assert code == 130
    again = out.with_name("other")
    assert not (again / "tied").exists()
    assert (dictionaries.load(again / "intermediate" / "tied").W_dec != whole.W_dec).any()
    assert run(rest, "--out", str(again))[1] == 0
    resumed = dictionaries.load(again / "tied")
    assert (resumed.W_dec == whole.W_dec).all()
    _, code, said = run(rest, "--out", str(again), "--n-steps", "13")
    assert code == 2 and "has a checkpoint of other settings" in said


@pytest.mark.parametrize(
    ("rest", "words", "message"),
    [
        ('kind = "topk"', (), "k = []: TopK needs one"),
        ('kind = "gated"\nk = [3]', (), "k = [3]: Gated has none"),
        ('kind = "topkk"', (), "kind = 'topkk': is not an architecture that is trained; known: "),
        ('kind = "pca"', (), "kind = 'pca': is not an architecture that is trained"),
        ('kind = "topk"\nk = [40]', (), "TopK: k=40 is larger than d_sae=32"),
        ('kind = "gated"\nn_step = 3', (), "unknown key 'n_step'; did you mean"),
        ('kind = "gated"\nsettings = {delta = 0.5}', (), "settings.delta: Gated has no delta; it takes none"),
        ('kind = "transcoder"', (), "kind = 'transcoder': needs site_out"),
        ('kind = "gated"\nsite_out = "blocks.1.mlp_out"', (), "kind = 'gated': reads one site; leave site_out away"),
        ('kind = "gated"\nsite = "blocks.resid_post"', (), "site = 'blocks.resid_post': gives 2 axes for a token"),
        ('kind = "gated"\nsite = "blocks.2.resid_pst"', (), "matches no site; near names: blocks.resid_post"),
        ('kind = "gated"\ncheckpoint_every = "x"', (), "checkpoint_every = 'x' is not int"),
        ('kind = "gated"\ncheckpoint_every = 0', (), "checkpoint_every=0: it must be at least 1"),
        ('kind = "gated"\nseeds = []', (), "seeds = []: a sweep needs at least one"),
        ('kind = "gated"', ("--batch-size", "100000"), "real tokens for batches of 100000"),
        ('kind = "gated"', ("--text", "/no/such.txt"), "/no/such.txt: there is no such text file"),
        ('kind = "gated"', ("--model", "/no/such"), "/no/such"),
    ],
)
def test_bad_input_is_one_line(run, rest, words, message):
    _, code, said = run(rest, *words)
    assert code == 2
    assert message in said
    assert len(said.splitlines()) == 1


def test_no_such_file(capsys):
    with pytest.raises(SystemExit):
        main(["train-dictionary", "--config", "no/such.toml"])
    assert "no/such.toml: no such file" in capsys.readouterr().err
