"""Activations, data sets and predictions in words: the experiments measure what they say, at tiny size."""

from collections.abc import Sequence
import random
import re

import numpy as np
import pytest

from interp_jax.data import microworld

pytestmark = pytest.mark.long
WORLD = microworld.WORLD


def test_texts_state_the_facts_of_their_contexts(experiment) -> None:
    contexts = experiment("verbal_contexts")
    some = contexts.draw(WORLD, 0, 60, "heldout")
    for row, real, text, facts in zip(*some, strict=True):
        words, said = ([WORLD.vocabulary[i] for i in ids] for ids in (row[real], text))
        assert contexts.facts(words) == contexts.facts(said) == facts and said[-3:] == [";", words[-1], "."]
        other = contexts.exchanged(text, WORLD, random.Random(0))
        changed = contexts.facts([WORLD.vocabulary[i] for i in other[: text.index(WORLD.token_id[";"])]])
        assert len(other) == len(text) and not changed & facts
    told = contexts.judged([{"Mary", "ring"}, {"store"}, set()], [{"Mary"}, {"store", "Anna"}, {"key"}])
    assert told["right"] == 2 / 3 and told["said"] == 0.5 and told["confabulated"] == pytest.approx(1 / 3)
    assert told["stated"] == 1 and told["texts with a confabulation"] == pytest.approx(1 / 3)


def test_a_verbaliser_and_a_reconstructor(experiment) -> None:
    """A text is heard as it is alone, without the vector's token and what stands after its end; its words likewise."""
    import jax
    import jax.numpy as jnp

    from interp_jax import models
    from interp_jax.explain import Reconstructor, reconstruct

    verbalisers = experiment("verbalisers")
    config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=16)
    model = models.Decoder.create(jax.random.key(0), config)
    site, stop = "blocks.0.resid_post", 3
    place = verbalisers.Place(site, (1, 2), stop, 6, 2.0)
    reconstructor = Reconstructor(model, jnp.eye(8), jnp.zeros(8))
    texts = [[5, 6, stop], [7, 8, 9, 10, stop]]
    tokens, mask = verbalisers.rows(place, texts)
    heard = verbalisers.vectors_of(reconstructor, place, tokens, mask)
    for text, vector in zip(texts, heard, strict=True):
        alone = reconstruct(models.forward, site)(reconstructor, jnp.array([[1, *text]]))
        np.testing.assert_allclose(vector, alone[0], atol=1e-5)
    vectors = jax.random.normal(jax.random.key(1), (2, 8))
    said, real = verbalisers.said(model, place, vectors)
    logs = verbalisers.log_probs(model, place, vectors, said)
    for row, ends, each in zip(np.asarray(said), np.asarray(real), np.asarray(logs), strict=True):
        n = int(ends.sum()) - 2
        assert ends[: n + 2].all() and (row[2:-1][: n - 1] != stop).all() and (n == 6 or row[n + 1] == stop)
        assert each.argmax(-1)[:n].tolist() == row[2 : n + 2].tolist()


def test_activations_in_words(run, capsys) -> None:
    sizes = {"n_train": 200, "n_test": 16, "n_steps": 4, "n_steps_reward": 2, "batch_size": 16, "n_samples": 2}
    _, found, saved = run("natural_language_autoencoder", "Autoencoder", **sizes, seeds=(0,))
    assert found["reward"].shape == (1, 2) and (found["reward"] < 0).all()
    assert found["the true text"]["confabulated"] == 0 and found["the true text"]["said"] == 1
    assert found["with other facts"]["right"] <= found["its last word"]["said"]  # which is all that it says rightly
    assert saved["by reward"]["FVE"][0] <= 1 and "texts with a confabulation" in capsys.readouterr().out


def test_the_planted_rule_of_a_data_set_is_found(run, capsys) -> None:
    _, found, saved = run("explain_data", "Explain", n_train=600, n_test=300, n_features=12, seeds=(0,))
    assert found["accuracy"]["explanations, linear"][0, 0] > 0.95 > found["accuracy"]["length"][0, 0]
    rows = saved["explanations"][0]
    passed = {kind: [row["low"] > 0 for row in rows if row["kind"] == kind] for kind in ("rule", "decoy", "neither")}
    assert len(passed["rule"]) >= 4 and all(passed["rule"]) and not any(passed["decoy"] + passed["neither"])
    assert "of the rule" in capsys.readouterr().out


def test_explanations_of_data_by_a_language_model(experiment) -> None:
    """One that proposes two properties of either class and judges them by a word."""
    explaining = experiment("data_explanations")
    texts, labels = ["a dull film", "a dull plot", "a fine film", "a fine plot"], np.array([0, 0, 1, 1])
    shown: list[str] = []

    def ask(prompt: str) -> str:
        shown.append(prompt)
        return "1. It is fine.\n\n2) About a film.\nMore."

    found = explaining.by_asking(ask, texts, labels, 4, 2, np.random.default_rng(0))
    assert [one.text for one in found] == ["It is fine.", "About a film."]
    assert all(("fine" in prompt.split("group B")[0]) == (i == 0) for i, prompt in enumerate(shown))

    def odds(prompts: Sequence[str]) -> np.ndarray:
        text = [prompt.split("\n")[0] for prompt in prompts]
        return np.array(
            [
                1.0 if ("fine" if "fine" in p.split("\n")[1] else "film") in t else -1.0
                for t, p in zip(text, prompts, strict=True)
            ]
        )

    values = explaining.asked(odds, found, texts)
    assert values.tolist() == [[-1, 1], [-1, -1], [1, 1], [1, -1]]
    assert explaining.decisive(lambda some: explaining.asked(odds, found, some)[:, 0], texts[2]) == {"fine"}


def test_a_check_of_an_explanation(experiment) -> None:
    """Deletion of the word that decides, of one that does not, and told the wrong way."""
    explaining = experiment("data_explanations")
    texts = [f"the {word} film was dull" for word in ("old", "new", "long", "short")]

    def process(some: Sequence[str]) -> np.ndarray:
        return np.array([-1.0 if "dull" in text else 1.0 for text in some])

    right, wrong, empty = (
        explaining.checked(process, texts, [frozenset([word])] * 4, towards, 0)
        for word, towards in (("dull", -0.5), ("dull", 0.5), ("film", -0.5))
    )
    assert right.named == 2 and right.low > 0 and wrong.named == -2 and wrong.high < 0
    assert empty.named == 0 and empty.high <= 0


def test_explanations_of_predictions(run, capsys) -> None:
    _, found, saved = run("explain_prediction", "Explain", n=4, seeds=(0,))
    assert found["words"]["AUC"][0] > 0.7 and found["chains"]["AUC"][0] == found["thoughts"]["AUC"][0] == 1
    assert found["chains"]["beside"]["follows the replaced answer"][0] == 1
    assert saved["thoughts"]["unfaithful"] == [0] and "told apart" in capsys.readouterr().out


def test_a_grounded_speaker_without_log_probs(experiment) -> None:
    """One that answers from the passage, knows its landmarks, and adds up what a thought or a story says."""
    real, chat = experiment("prediction_real"), experiment("local_chat")

    def ask(prompt: str) -> str:
        if "Question: What does" in prompt:
            person = re.findall(r"does (\w+) work", prompt)[0]
            return (re.findall(rf"{person} lives in \w+ and works as a (\w+)", prompt) or ["nobody"])[0]
        if "In which city" in prompt:
            return next(city for name, (city, _) in real.LANDMARKS.items() if name in prompt)
        where = prompt.split("In which country is ")[1]
        return next(land for name, (city, land) in real.LANDMARKS.items() if name in where or city in where)

    speaker = chat.Speaker(ask, lambda prompt, seed: ask(prompt), None)
    for kind, beside in (("passages", "follows a changed passage"), ("chains", "follows the replaced answer")):
        told = real.KINDS[kind](speaker, random.Random(0), 5)
        assert min(told.faithful) > max(told.unfaithful) and told.beside[beside] == 1


def test_chances_of_options(experiment) -> None:
    """Of the first token in which they differ, whatever else is asked at the same time; words where there are none."""
    from interp_jax import models

    chat = experiment("local_chat")
    model, tokenizer = models.load("microworld-chat", dtype="float32")
    speaker = chat.at_hand(model, tokenizer, 4)
    prompts = ["what is the capital of France ?", "hello"]
    told = chat.chances(speaker, prompts, ("Paris", "Rome"), "it is")
    text = tokenizer.render([{"role": "user", "content": prompts[0]}]) + "it is"
    logits = models.forward(model, tokenizer.to_tokens(text, bos=False))[-1]
    ids = [tokenizer.token_id(word) for word in ("Paris", "Rome")]
    np.testing.assert_allclose(told[0, 0] - told[0, 1], logits[ids[0]] - logits[ids[1]], atol=1e-4)
    with pytest.raises(ValueError, match="begin with the same token"):
        chat.chances(speaker, prompts, ("Paris", "Paris"))
    plain = chat.Speaker(lambda prompt: "Not Rome, but Paris." if "?" in prompt else "", lambda prompt, seed: "", None)
    assert chat.chances(plain, prompts, ("Paris", "Rome"), "it is").tolist() == [[0, 1], [0, 0]]
