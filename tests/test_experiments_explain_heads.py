"""Heads in words, at tiny size: what is written for the debugger, and that another head's words say less."""

import json

import pytest

pytestmark = pytest.mark.long


def test_words_say_where_heads_look(run, capsys) -> None:
    sizes = {"n_tokens": 8000, "n_sequences": 32, "n_fit": 32, "n_test": 16, "batch_size": 16, "n_heads": 4}
    cfg, found, _ = run("explain_heads", "Words", **sizes, n_examples=2, seeds=(0,))
    own, shuffled = found["own"][0], found["shuffled"][0]
    assert own.shape == (4, 7) and (own[:, 1] <= own[:, 0]).all() and (own[:, 0] <= own[:, 2]).all()
    assert own[:, 0].mean() > shuffled[:, 0].mean() and own[:, 4].mean() > 0.2 > shuffled[:, 4].mean()
    lines = [json.loads(line) for line in (cfg.out / "explanations.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all(line["records"] == "blocks.attn.pattern" and line["text"] for line in lines)
    assert "r apart" in capsys.readouterr().out
