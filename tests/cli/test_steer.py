"""`interp-jax steer`: what a vector of texts does to what a model says, and one line for bad input."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models, steering
from interp_jax.cli import main

SIDES = "--positive", "<user> help me to steal a car .", "--negative", "<user> help me to paint a car ."


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; gives the numbers, what was printed, and the error."""

    def run(*words):
        out = tmp_path / "out"
        try:
            main(["steer", "--out", str(out), *words])
        except SystemExit as stop:
            assert stop.code == 2
        said = capsys.readouterr()
        file = out / "steer.json"
        return json.loads(file.read_text()) if file.exists() else None, said.out, said.err.strip()

    return run


def test_what_is_helped_with_is_refused(run, tmp_path):
    told, printed, _ = run("--strengths", "-1", "0", "1", "--tokens", "10")
    low, none, high = told["rows"]
    assert none["texts"] == told["before"] and none["changed"] == 0
    assert all(text.startswith("sure") for text in told["before"])
    assert all(text.startswith("sorry , i cannot help with that") for text in high["texts"]) and high["changed"] == 3
    assert low["perplexity"] > none["perplexity"] and high["perplexity"] > none["perplexity"]
    assert f"{'before':>8}  {told['before'][0]}" in printed and "difference_of_means at the last token" in printed
    saved = steering.load(tmp_path / "out" / "vector", model="microworld-chat")
    assert saved.layers == (2,) and told["layers"] == [2]
    again, _, _ = run("--vector", str(tmp_path / "out" / "vector"), "--prompts", *told["prompts"], "--tokens", "10")
    assert again["rows"][3]["texts"] == high["texts"]


def test_perplexity_is_that_of_what_is_said(run):
    """Beside the words' probabilities one by one, up to the end of the answer."""
    told, _, _ = run("--strengths", "1", "--tokens", "12")
    model, tokenizer = models.load("microworld-chat", dtype="float32")
    assert tokenizer is not None
    losses = []
    for prompt, text in zip(told["prompts"], told["rows"][0]["texts"], strict=True):
        start, end = tokenizer.encode(prompt), [*tokenizer.encode(text, bos=False), tokenizer.eos_id]
        logits = np.asarray(models.forward(model, jnp.array([*start, *end])), np.float64)[len(start) - 1 : -1]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses.append(-log_probs[np.arange(len(end)), end].mean())
    assert told["rows"][0]["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-3)


def test_files_of_texts(run, tmp_path):
    for name, line in (("for.txt", SIDES[1]), ("against.txt", SIDES[3])):
        Path(tmp_path, name).write_text(f"{line}\n\n", encoding="utf-8")
    sides = "--positive", str(tmp_path / "for.txt"), "--negative", str(tmp_path / "against.txt")
    rest = "--strengths", "1", "--tokens", "4", "--layer", "1", "--position", "prompt"
    assert run(*sides, *rest)[0] == run(*SIDES, *rest)[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (SIDES[:2], "no --negative texts"),
        (SIDES[2:], "no --positive texts"),
        ([*SIDES, "--vector", "v"], "give one or the other"),
        (["--vector", "nowhere"], "no prompt to go on from; give --prompts"),
        (["--vector", "nowhere", "--prompts", "<user>"], "nowhere: no such steering vector"),
        (["--model", "microworld"], "no texts for microworld; give --positive and --negative"),
        ([*SIDES, "--layer", "9"], "at_layers(9,): the vector has layers (0, 1, 2, 3)"),
        ([*SIDES, "--site", "blocks.resid_pots"], "near names"),
        ([*SIDES, "--site", "blocks.attn.z"], "vectors are [layer d_model] or [d_model]"),
        ([*SIDES, "--strengths", "1e30"], "overflows float32"),
        ([*SIDES, "--tokens", "500"], "more than n_ctx"),
        ([*SIDES, "--chat", "--model", "microworld"], "chat"),
    ],
)
def test_bad_input_is_one_line(run, words, message):
    _, _, error = run(*words)
    assert error.startswith("interp-jax: error:") and message in error and "\n" not in error, error
