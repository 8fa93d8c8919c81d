"""Compiled circuits: pairs differ where they are asked, and at tiny size patching finds every circuit."""

import numpy as np
import pytest

from interp_jax.models import rasp

pytestmark = pytest.mark.long


def test_pairs(experiment) -> None:
    programs = experiment("compiled_programs")
    for name, program in programs.PROGRAMS.items():
        compiled = rasp.compile(program, "abcde", 4)
        rng = np.random.default_rng(0)
        clean, corrupted, at, answers, distractors = programs.pairs(name, compiled, 3, 4, rng)
        assert clean.shape == corrupted.shape == (3, 5) and (answers != distractors).all()
        for tokens, said in ((clean, answers), (corrupted, distractors)):
            for row, place, word in zip(np.asarray(tokens), np.asarray(at), np.asarray(said), strict=True):
                inputs = [compiled.vocabulary[i] for i in row[1:]]
                assert rasp.evaluate(program, inputs)[place - 1] == compiled.vocabulary[word]


def test_scores(experiment) -> None:
    """A perfect order, its reverse, and ties, which are broken at random."""
    truth, rng = np.array([True, True, False, False, False, False]), np.random.default_rng(0)
    sizes = {"right": np.arange(6)[::-1], "wrong": np.arange(6), "nothing": np.zeros(6)}
    found = experiment("compiled_circuits").judged({m: x.astype(float) for m, x in sizes.items()}, truth, rng)
    assert found["right"] == [1, 1] and found["wrong"] == [0, 0] and found["nothing"][0] == 0.5


def test_compiled_circuits(run, capsys) -> None:
    sizes = {"programs": ("histogram", "induction"), "length": 4, "n_letters": 5, "decoys": 1, "n": 6, "steps": 2}
    _, found, saved = run("compiled_circuits", "Compiled", **sizes, seeds=(0,))
    for program in found.values():
        assert program["exact"][0] == 1
        for kind, best in (("nodes", "patching"), ("queries and keys", "and back"), ("edges", "edge patching")):
            assert program[kind][best][0, 0] == 1
    assert saved["programs"]["induction"]["edges"]["members"][0][0] == 5
    assert "edge patching" in capsys.readouterr().out


def test_an_unknown_program(run) -> None:
    with pytest.raises(SystemExit, match="no program 'nothing'"):
        run("compiled_circuits", "Compiled", programs=("nothing",))
