"""A small language model as explainer, judge and simulator, and a real embedder. It is weak: see experiments."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import explain, models
from interp_jax.explain import judges, scores, simulators
from interp_jax.io.chat import Request
from tests.explain import units
from tests.real.conftest import Real

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def chat(smollm: Real):
    return models.answering(smollm.model, smollm.tokenizer)


def test_it_answers(chat) -> None:
    question = {"role": "user", "content": "What is the capital of France?"}
    (reply,) = chat([Request((question,), max_tokens=12, top=2)])
    assert "Paris" in reply.text and "".join(token.text for token in reply.tokens) == reply.text
    assert all(len(token.top) == 2 for token in reply.tokens)


def test_it_reads_a_table_in_one_pass(chat) -> None:
    """All levels come from one reading, each a mean of the numbers that it thinks likely there."""
    texts = [(" The", " cat", " sat", "."), (" She", " ran")]
    found = explain.ask(chat, simulators.in_one_pass("cats", most=9)(texts), shown=False)
    assert [len(levels) for levels in found] == [4, 2]
    assert all(np.isfinite(levels).all() and (levels >= 0).all() and (levels <= 10).all() for levels in found)


def test_it_explains_and_judges_some(chat) -> None:
    some = units.examples(units.on_cats)
    few = replace(some, train=some.train[:2], test=some.test[:1], quiet=some.quiet[:1])
    assert isinstance(explain.ask(chat, explain.by_marks(few), shown=False), str | None)
    found = explain.ask(chat, scores.detection(judges.by_chat("cats and dogs"), few), shown=False)
    assert found.used + found.unusable == 2


def test_a_real_embedder_tells_what_a_text_is_about(minilm: Real) -> None:
    """Texts about animals against others: the explanation's vector is nearer to them. One that is wrong is not."""

    def embed(texts):
        tokens, mask, _ = models.tokenize(minilm.tokenizer, list(texts), side="right")
        x = models.hidden(minilm.model, tokens, attention_mask=mask)
        return jnp.asarray(x.mean(1, where=mask[..., None]))

    def text(said: str) -> explain.Excerpt:
        return explain.Excerpt(tuple(f" {word}" for word in said.split()), (1.0,) * len(said.split()), 0)

    test = tuple(map(text, ["the dog barked all night", "a kitten slept on the mat", "horses ran over the field"]))
    quiet = tuple(map(text, ["shares fell on Monday", "she signed the contract", "the engine has four cylinders"]))
    some = explain.Evidence(test, test, quiet)
    assert scores.embedding(embed, "animals", some).scores["embedding"].value == 1
    assert scores.embedding(embed, "money and business", some).scores["embedding"].value < 0.5
