"""The command line: the whole job at a tiny size, and one line for whatever is wrong with what it is given."""

import os
import random
import re
import subprocess
import sys

import jax
import pytest

from interp_jax import dictionaries, models
from interp_jax.cli import main

WORDS = "the cat dog sat ran on mat and saw a big red ball then went home with mom who said yes .".split()
TINY = (
    "--sizes.tokens 3000 --sizes.positions 24 --sizes.expansion 2 --sizes.k 2 --sizes.steps 12 --sizes.batch 64".split()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama of three layers with a word-level tokenizer, as a Hugging Face folder, and a text."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, pre_tokenizers
    from tokenizers import models as kinds

    backend = Backend(kinds.WordLevel({"<s>": 0, "<unk>": 1} | {w: i + 2 for i, w in enumerate(WORDS)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Sequence([decoders.Replace("<s>", "<s>"), decoders.Fuse()])
    backend.add_special_tokens(["<s>"])
    tokenizer = models.Tokenizer(backend, {"bos_token": "<s>", "unk_token": "<unk>"})
    config = models.Config(n_layers=3, n_heads=2, d_model=16, d_mlp=32, d_vocab=len(WORDS) + 2, n_ctx=64)
    where = tmp_path_factory.mktemp("tiny")
    models.save(where / "model", models.Decoder.create(jax.random.key(0), config), tokenizer)
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=14)) for _ in range(200)]
    (where / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    return where


def run(*words, capsys):
    """Exit code, stdout and stderr of one command."""
    try:
        main([str(word) for word in words])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.long  # the wheel's stage of .ci/run makes one in small
def test_quickstart_from_end_to_end(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["quickstart", "--model", folder / "model", "--text", folder / "text.txt", "--out", "out", *TINY]
    code, out, err = run(*command, capsys=capsys)
    assert code == 0, err
    assert "blocks.resid_post" in out
    assert "blocks.1.resid_post" in out  # the default site: after the last block but one
    assert "of what mean ablation loses" in out

    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert list((tmp_path / "out" / "tensorboard").rglob("events.out.*"))
    dictionary = dictionaries.load(tmp_path / "out" / "dictionary")
    assert (dictionary.d_in, dictionary.d_sae, dictionary.k) == (16, 32, 2)
    about = dictionaries.load_metadata("out/dictionary")
    assert about["site"] == "blocks.1.resid_post"
    assert about["normalisation"] > 0

    printed = out[out.index("import interp_jax as ij") :]
    namespace = {}
    exec(printed, namespace)  # the last lines run as they are printed
    assert namespace["features"].shape[-1] == 32

    # Again, over what is there: a site that has no direct path to the logits, and the microworld's text.
    again = ["quickstart", "--model", folder / "model", "--site", "blocks.0.mlp.post", "--out", "out", *TINY]
    code, _, err = run(*again, capsys=capsys)
    assert code == 0, err
    assert dictionaries.load("out/dictionary").d_in == 32
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dictionary", "index.html", "tensorboard"]


def test_sites_prints_the_catalogue(folder, capsys):
    code, out, _ = run("sites", folder / "model", capsys=capsys)
    assert code == 0
    assert re.search(r"blocks\.resid_post +0-2 ", out)


@pytest.mark.parametrize("words", [[], ["--help"], ["quickstart", "--help"]])
def test_help(words, capsys):
    code, out, _ = run(*words, capsys=capsys)
    assert code == 0
    assert "quickstart" in out


def refused(capsys, *words):
    """The one line that a command with bad input gives, after those of its progress if it took long."""
    code, out, err = run(*words, capsys=capsys)
    assert code == 2, out + err
    *progress, last = err.splitlines()
    assert last.startswith("interp-jax: error: ") and all(" gone" in line for line in progress)
    return last


def test_unknown_site_lists_near_names(folder, tmp_path, capsys):
    command = ["quickstart", "--model", folder / "model", "--out", tmp_path, "--site"]
    assert "blocks.resid_post" in refused(capsys, *command, "blocks.1.resid_pots")
    assert "blocks.7" in refused(capsys, *command, "blocks.7.resid_post")
    assert "name one layer" in refused(capsys, *command, "blocks.resid_post")
    assert "one vector for each token" in refused(capsys, *command, "blocks.1.attn.pattern")


def test_unknown_model(tmp_path, capsys):
    assert "no such model folder" in refused(capsys, "sites", tmp_path / "nothing")
    assert "no such model folder" in refused(capsys, "quickstart", "--model", "./nothing", "--out", tmp_path)


def test_text_that_cannot_be_read(folder, tmp_path, capsys):
    command = ["quickstart", "--model", folder / "model", "--out", tmp_path / "out", "--text"]
    latin = tmp_path / "latin.txt"
    latin.write_bytes("un café à Paris\n".encode("latin-1") * 500)
    assert "is not UTF-8" in refused(capsys, *command, latin)
    assert "no such text file" in refused(capsys, *command, tmp_path / "nothing.txt")
    assert "is a folder" in refused(capsys, *command, tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("the cat sat", encoding="utf-8")
    assert "give a longer text" in refused(capsys, *command, short)
    (tmp_path / "empty.txt").touch()
    assert "give a longer text" in refused(capsys, *command, tmp_path / "empty.txt")


def test_out_that_cannot_be_written(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    command = ["quickstart", "--model", folder / "model", "--text", folder / "text.txt", *TINY, "--out"]
    assert "choose another folder" in refused(capsys, *command, tmp_path / "file")
    assert "choose another folder" in refused(capsys, *command, tmp_path / "file" / "inside")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_without_permission(folder, tmp_path, capsys):
    tmp_path.chmod(0o500)
    command = ["quickstart", "--model", folder / "model", "--text", folder / "text.txt", *TINY, "--out"]
    assert "Permission denied" in refused(capsys, *command, tmp_path / "out")


def test_a_folder_that_is_not_ours_is_kept(folder, tmp_path, capsys):
    (tmp_path / "dictionary").mkdir()
    (tmp_path / "dictionary" / "notes.txt").write_text("mine", encoding="utf-8")
    command = ["quickstart", "--model", folder / "model", "--text", folder / "text.txt", *TINY, "--out", tmp_path]
    assert "is not a checkpoint" in refused(capsys, *command)
    assert (tmp_path / "dictionary" / "notes.txt").read_text() == "mine"


def test_impossible_sizes(folder, tmp_path, capsys):
    command = ["quickstart", "--model", folder / "model", "--text", folder / "text.txt", *TINY, "--out", tmp_path]
    assert "k=1000 is larger than d_sae=32" in refused(capsys, *command, "--sizes.k", 1000)


def test_no_traceback_in_a_shell(folder, tmp_path):
    command = [sys.executable, "-c", "from interp_jax.cli import main; main()", "sites", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("interp-jax: error: ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-uc", "from interp_jax.cli import main; main()", "sites", "microworld"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 141
