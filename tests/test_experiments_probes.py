"""The experiments with probes at tiny size, on the microworld: each finds what is known of it, and writes its files."""

from pathlib import Path

import numpy as np
import pytest

from interp_jax import capture, data, models

pytestmark = pytest.mark.long


def test_the_sentiment_unit(run, capsys) -> None:
    """The judgement of a review is at its last word after layer 2, and not after layer 0, which has seen no other."""
    _, found, saved = run("sentiment_unit", "Unit", n_train=120, n_test=80, batch_size=40, l2s=(10.0,), seeds=(0,))
    neurons = found["blocks.mlp.post"]
    assert neurons["AUC"][0, 2] > 0.95 and neurons["AUC of the direction"][0, 2] > 0.95
    assert abs(neurons["AUC"][0, 0] - 0.5) < 0.2
    assert np.array(saved["blocks.mlp.post"]["unit"]).shape == (1, 4)
    assert "The best neuron (layer 2)" in capsys.readouterr().out


def test_kinds_of_probes(run, capsys) -> None:
    sizes = dict(n_train=120, n_test=80, batch_size=40, n_steps=20, codes=("logistic",), seeds=(0,))
    _, found, saved = run("probes", "Probing", **sizes)
    accuracy = found["logistic"]["accuracy"]  # [seed layer position]
    assert accuracy.shape == (1, 4, 3) and accuracy[0, 2:, 2].min() > 0.95 and accuracy[0, 0, 2] < 0.8
    assert found["logistic"]["compression"][0, 2, 2] > 2
    assert set(saved["kinds"]) == set(found) and len(found) == 7 and saved["positions"] == ["adj1", "adj2", "end"]
    assert "Where types recur" in capsys.readouterr().out


def test_ravel(run, capsys) -> None:
    """The subject's whole state moves all answers before the last layer and none after it."""
    _, found, saved = run("ravel", "Ravel", layers=(1, 3), n_steps=60, n_test=40, seeds=(0,))
    whole, das = found["whole state"][0], found["DAS"][0]  # [layer held-out-or-seen cause-or-isolate]
    assert whole[0, :, 0].min() > 0.8 and whole[0, :, 1].max() < 0.2 and whole[1, :, 0].max() < 0.1
    assert das[0, 1].mean() > 0.7 and found["random"][0][0, 0].mean() < 0.6
    assert np.shape(saved["DAS"]) == (1, 2, 2, 2) and "0.5 is what doing nothing gets" in capsys.readouterr().out


def test_regimes(run, capsys) -> None:
    """Probes after layer 2 tell reviews apart where labels are right, and the other way round where all are wrong."""
    data_sizes = dict(layer=2, n_train=160, n_test=80, scarce=(4,), shares=(0.2,), n_unequal=40, flipped=(0.0, 1.0))
    sizes = dict(
        ks=(1, 5), l2s=(1.0, 100.0), d_sae=64, n_active=8, n_tokens=4000, n_steps=40, batch_size=40, seeds=(0,)
    )
    _, found, saved = run("probe_regimes", "Regimes", **data_sizes, **sizes)
    assert saved["regimes"] == ["4 labels", "20% positive", "0% flipped", "100% flipped"]
    assert set(found["auc"]) == {"activations", "1 features", "5 features"}
    right, wrong = found["auc"]["activations"][0, 2:]  # [seed regime]
    assert right > 0.95 and wrong < 0.05 and "mean AUC" in capsys.readouterr().out


def test_activations_are_of_their_texts(experiment) -> None:
    """Sorted by length, cut and padded, run in batches that do not fill up: each text is as by itself."""
    labelled = experiment("labelled")
    model, tokenizer = models.load("microworld", dtype="float32")
    some, held_out = labelled.texts(tokenizer, None, 20, 13, 0)
    assert held_out.sum() == 13 and some.labels.shape == (33,)
    found = labelled.activations(model, some, ("blocks.resid_post",), 8, lambda step: None)["blocks.resid_post"]
    for i in (0, 5, 32):
        tokens = some.tokens[i][some.mask[i]][None]
        alone = capture(models.forward, "blocks.resid_post", output=False)(model, tokens)["blocks.resid_post"]
        np.testing.assert_allclose(found[:, -1, i], alone[:, 0, -1], atol=2e-4)


def test_sst2(real_data: Path, tmp_path: Path) -> None:
    """Every line is read, lengths are those of the words, and a training phrase within a held-out one is taken out."""
    dev = data.sst2.read(real_data / "sst2" / "dev.tsv")
    assert len(dev) == len((real_data / "sst2" / "dev.tsv").read_text().splitlines()) - 1
    assert 0.4 < dev.labels.mean() < 0.6
    some = data.sst2.read(real_data / "sst2" / "dev.tsv", least=5, most=9)
    assert {len(sentence.split()) for sentence in some.sentences} == {5, 6, 7, 8, 9}
    train = data.sst2.Reviews(("a warm film", "warm", "cold soup"), np.array([1, 1, 0]))
    held = data.sst2.Reviews(("a warm film indeed",), np.array([1]))
    assert data.sst2.apart(train, held).sentences == ("cold soup",)
    for text, told in [
        ("text\tlabel\n", "begins with 'text"),
        ("sentence\tlabel\nfine 1\n", "line 2: 'fine 1' is not"),
    ]:
        (tmp_path / "bad.tsv").write_text(text)
        with pytest.raises(ValueError, match=told):
            data.sst2.read(tmp_path / "bad.tsv")
    with pytest.raises(ValueError, match="no sentence of 400 to any number of words"):
        data.sst2.read(real_data / "sst2" / "dev.tsv", least=400)
