"""AxBench in small, at tiny size: what is known of the microworld comes out, and its judges are exact."""

import numpy as np
import pytest

from interp_jax import models

pytestmark = pytest.mark.long


def test_the_prompt_and_what_is_learned(run) -> None:
    """The prompt asks, and the model, left alone, has none of the concept; random directions do not steer."""
    sizes = {"n_train": 24, "n_held": 8, "n_asked": 6, "every": 5, "n_steps": 40, "n_steps_dictionary": 60}
    sizes |= {"n_texts": 32, "n_lens": 2, "concepts": ("pirate", "child"), "seeds": (0,), "d_sae": 64}
    cfg, found, saved = run("axbench", "AxBench", **sizes)
    names = "DiffMean CAA PCA LAT probe ReFT-r1 LoReFT prompt random".split()
    names += ["Jacobian lens", "shuffled labels", "feature, clamped", "feature, added", "left alone"]
    assert set(found) == set(names) == set(saved) - {"config"}
    assert all(of["harmonic"].shape == (1, 2) for of in found.values())
    assert found["prompt"]["harmonic"].mean() > 1.5
    assert found["left alone"]["concept"].max() == 0 and found["left alone"]["fluency"].mean() > 1.5
    assert found["random"]["harmonic"].mean() < 0.2
    scores = np.stack([of[column] for of in found.values() for column in ("concept", "instruction", "fluency")])
    assert ((scores >= 0) & (scores <= 2)).all()
    assert np.isnan(found["LoReFT"]["auroc"]).all() and np.isfinite(found["probe"]["auroc"]).all()


@pytest.mark.parametrize(
    ("said", "scores"),
    [
        ("arr it is Paris matey <end>", (2, 2, 2)),
        ("it is Paris , look at a map <end>", (0, 2, 2)),
        ("arr it is Rome matey <end>", (2, 1, 2)),
        ("arr it is is Paris <end>", (1, 2, 1)),
        ("arr it is Paris matey", (2, 2, 1)),
        ("matey arr matey arr", (2, 0, 0)),
        ("hark it is Paris <end>", (0, 2, 2)),
        ("", (0, 0, 0)),
    ],
)
def test_the_judge_of_a_persona(experiment, said, scores) -> None:
    world = experiment("axbench_world")
    asked = "what is the capital of France ?"
    judge = world.functools.partial(world.judge, ("arr", "matey"), {asked: ("is", "Paris")})
    assert judge(asked, said, "pirate") == scores


@pytest.mark.parametrize("name", ["pirate", "child"])
def test_texts_of_a_concept(experiment, name) -> None:
    """The model's own answers are what the judge takes for right; nothing that is held out is trained on."""
    world, concepts = experiment("axbench_world"), experiment("axbench_concepts")
    one = world.concept(name, 30, 10, 12, seed=0)
    train = {concepts.asked(talk) for talk in one.positive + one.negative + one.plain}
    held = {concepts.asked(talk) for talk in sum(one.held.values(), one.instructions)}
    assert not train & held
    for talk in one.positive + one.held["positive"]:
        assert all(word in talk[-1]["content"].split() for word in one.words)
    for talk in one.negative + one.held["negative"] + one.held["hard"]:
        assert not set(one.words) & set(talk[-1]["content"].split())
        assert world.fluency(f"{talk[-1]['content']} <end>") == 2
    model, tokenizer = models.load("microworld-chat", dtype="float32")
    for talks, has in ((one.instructions, 0), (one.prompted, 2)):
        tokens, mask, _ = models.tokenize(tokenizer, talks, chat=True)
        out = models.generate(model, tokens, 16, attention_mask=mask, stop=tokenizer.eos_id)
        scores = []
        for talk, row in zip(one.instructions, np.asarray(out)[:, tokens.shape[1] :].tolist(), strict=True):
            said = tokenizer.decode(row[: row.index(tokenizer.eos_id) + 1])
            scores.append(one.judge(concepts.asked(talk), said, name))
        assert np.mean(scores, 0) == pytest.approx([has, 2, 2], abs=0.2)


def test_topics_of_texts(experiment, real_data) -> None:
    topics = experiment("axbench_topics")
    one = topics.concept("music", 8, 4, 4, 0, lambda instruction, continuation: 2)
    own, shared = (set(words.split()) for words in topics.TOPICS["music"])
    words = {kind: [set(t[-1]["content"].lower().split()) for t in talks] for kind, talks in one.held.items()}
    assert all(some & own for some in words["positive"])
    assert all(not some & own and some & shared for some in words["hard"])
    assert one.judge("What do bees make?", "Honey, a song and a piano.", "music") == (2, 2, 2)
    with pytest.raises(SystemExit, match="'chess' is none of music"):
        topics.concept("chess", 8, 4, 4, 0, lambda *_: 2)
    with pytest.raises(SystemExit, match="'chess' is none of pirate"):
        experiment("axbench_world").concept("chess", 8, 4, 4, 0)
