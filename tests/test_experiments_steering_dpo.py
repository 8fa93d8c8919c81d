"""DPO: its loss and gradient are the paper's, and the experiment measures what it says, at tiny size."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models

pytestmark = pytest.mark.long


def test_loss_and_gradient(experiment) -> None:
    """Against scipy, and the gradient of Rafailov et al., equation 7: -beta sigmoid(-beta margin) (dw - dl)."""
    from scipy.special import expit

    loss = experiment("preferences").dpo_loss
    some = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32) * 3
    won, lost, ref_won, ref_lost = map(jnp.asarray, some)
    margin = some[0] - some[2] - some[1] + some[3]
    assert float(loss((won, lost), (ref_won, ref_lost), 0.3)) == pytest.approx(-np.log(expit(0.3 * margin)).mean())
    assert float(loss((won, lost), (won, lost), 0.3)) == pytest.approx(np.log(2))
    slope = jax.jit(jax.grad(lambda x: loss((x, lost), (ref_won, ref_lost), 0.3)))(won)
    assert np.allclose(slope, -0.3 * expit(-0.3 * margin) / 5, atol=1e-6)
    with pytest.raises(ValueError, match="beta=0"):
        loss((won, lost), (won, lost), 0)
    with pytest.raises(ValueError, match="one for each pair"):
        loss((won, lost[:2]), (won, lost), 1.0)


def test_log_probs_of_answers(experiment) -> None:
    """A sum over the answer's tokens, one text at a time and without padding; it prefers what it is trained to."""
    preferences, world = experiment("preferences"), experiment("dpo_toxicity_world")
    model, tokenizer = models.load("microworld-chat", dtype="float32")
    cfg = SimpleNamespace(n_train=2, n_asked=2, learning_rate=1e-4, n_steps=10, batch_size=8, beta=0.1)
    clean, rude, _ = world.pairs(cfg, tokenizer, 0)
    told = preferences.log_probs(model, *(jnp.asarray(x) for x in (rude.tokens, rude.mask, rude.answered)))
    for row in (0, 5):
        real = rude.mask[row]
        tokens, answered = rude.tokens[row][real], rude.answered[row][real]
        logs = np.asarray(jax.nn.log_softmax(models.forward(model, tokens[None])[0]))
        alone = sum(logs[i - 1, tokens[i]] for i in np.flatnonzero(answered))
        assert float(told[row]) == pytest.approx(float(alone), abs=1e-4)
    with jax.numpy_dtype_promotion("standard"):
        new, losses = preferences.aligned(cfg, model, (clean, rude), 0)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5) and losses[-1] < losses[0]
    assert (models.weights(new)["W_E"] == models.weights(model)["W_E"]).all()


def test_the_bypass(run, capsys) -> None:
    sizes = {"n_train": 8, "n_asked": 1, "n_vectors": 4, "strengths": (1.0,), "scales": (10.0,), "n_steps": 10}
    _, found, saved = run("dpo_toxicity", "Toxicity", **sizes, batch_size=8, n_cost=8, seeds=(0,))
    assert found["base"][0, 0] == 1 and found["probe"][0] > 0.9
    for name in ("toxic", "random"):
        assert found[name]["scaled"].shape == (1, 1, 2) and 0.9 < found[name]["value cosine"][0] <= 1 + 1e-6
    assert saved["weights"]["W_out"][0] > 0.9 and "after DPO" in capsys.readouterr().out


def test_insults(experiment, monkeypatch) -> None:
    """Prompts held out share no person and no deed with the others, and a pair differs by insults alone."""
    insults = experiment("dpo_toxicity_insults")
    cfg = SimpleNamespace(n_train=40, n_asked=12)
    talks = []
    monkeypatch.setattr(insults, "tokenized", lambda tokenizer, some, width: talks.append(some))
    tokenizer = SimpleNamespace(encode=lambda talk, chat: [0])
    *_, asked = insults.pairs(cfg, tokenizer, 0)
    trained, held = ({talk[at]["content"] for talk in some} for some, at in ((talks[0], -2), (asked, -1)))
    assert len(trained) == 40 and len(held) == 12
    words = [{word for line in lines for word in line.split()} for lines in (trained, held)]
    assert not {word.strip(".?") for word in words[0]} & {word.strip(".?") for word in words[1]} & set(insults.PEOPLE)
    assert not any(deed in line for deed in insults.DEEDS for line in trained if any(deed in one for one in held))
    for clean, rude in zip(*talks, strict=True):
        assert rude[-1]["content"].endswith(clean[-1]["content"]) and rude[:-1] == clean[:-1]
        assert set(insults.RUDE) & set(re.findall("[a-z]+", rude[-1]["content"]))
    with pytest.raises(SystemExit, match="lower n_train"):
        insults.pairs(SimpleNamespace(n_train=41, n_asked=1), tokenizer, 0)
