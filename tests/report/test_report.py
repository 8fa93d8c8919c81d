"""The page: what fires is counted right, labels find the word, and nothing that a text holds becomes markup."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import report
from tests.dictionaries.kinds import kinds, noisy

STRINGS = [" Anna", " L", "ily", " ran", ".", "<script>alert(1)</script>", "\n", '" onmouseover="x']


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneHot:
    """A dictionary whose feature i fires, as strongly as given, on token i."""

    d_sae: int = field(metadata={"static": True})

    @property
    def input_shape(self):
        return (self.d_sae,)

    feature_shape = input_shape

    def encode(self, x):
        return x


@kinds
def test_every_kind_has_a_page(kind):
    d, rng = noisy(kind), np.random.default_rng(0)
    x = rng.normal(size=(40, 30, *d.input_shape)).astype(np.float32)
    tokens, mask = rng.integers(0, len(STRINGS), (40, 30)).astype(np.int32), rng.uniform(size=(40, 30)) < 0.9
    found = report.firings(d, x, mask, batch_size=16)
    by_hand = np.where(mask[..., None], np.asarray(d.encode(x)).reshape(40, 30, -1), 0)
    for feature in range(by_hand.shape[-1]):
        np.testing.assert_allclose(found.dense(feature), np.maximum(by_hand[..., feature], 0), atol=1e-6)
    telling = report.telling(found, report.words(tokens, mask, STRINGS), d.W_dec, n=3, least_firings=1, most=1.0)
    assert telling
    features = [report.describe(found, feature, label, tokens, mask, STRINGS, None) for feature, label in telling]
    assert "<html" in report.page(features, title=kind, facts={}, densities=found.densities, steered=None, code="")


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (np.ones((4, 8)), None, r"activations of shape \(4, 8\), wanted \[sequence, position, 8\]"),
        (np.ones((2, 3, 5)), None, "wanted"),
        (np.ones((0, 3, 8)), None, "not empty"),
        (np.ones((2, 3, 8)), np.ones((2, 4), bool), r"a mask of shape \(2, 4\) for tokens \(2, 3\)"),
    ],
)
def test_activations_of_another_shape_are_refused(x, mask, message):
    with pytest.raises(ValueError, match=message) as error:
        report.firings(noisy("topk"), x, mask)
    assert "\n" not in str(error.value)


@pytest.fixture
def text():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, len(STRINGS), (12, 20)).astype(np.int32)
    tokens[tokens == 2] = 3  # "ily" stands only after " L", and neither at the start
    tokens[:, :2][tokens[:, :2] == 1] = 3
    for row in tokens:
        for position in range(1, 20):
            if row[position - 1] == 1:
                row[position] = 2
    mask = np.ones(tokens.shape, bool)
    mask[:, 0] = False
    strength = rng.uniform(0.5, 1.0, tokens.shape).astype(np.float32)
    activations = np.eye(len(STRINGS), dtype=np.float32)[tokens] * strength[..., None]
    return tokens, mask, activations


@pytest.fixture
def found(text):
    tokens, mask, activations = text
    return report.firings(OneHot(len(STRINGS)), activations, mask, batch_size=5)


def test_firings_are_those_of_the_unmasked_tokens(text, found):
    tokens, mask, activations = text
    for feature in range(len(STRINGS)):
        expected = np.where(mask, activations[..., feature], 0)
        np.testing.assert_array_equal(found.dense(feature), expected)
        assert found.counts[feature] == (expected > 0).sum()
    np.testing.assert_allclose(found.densities.sum(), 1.0)


def test_label_is_the_word_that_the_token_is_in(text, found):
    tokens, mask, _ = text
    words = report.words(tokens, mask, STRINGS)
    named = report.label(found, words, 2)
    assert str(named) == "Lily"
    assert (named.coverage, named.recall, named.whole) == pytest.approx((1.0, 1.0, 1.0))
    assert report.label(found, words, 1).whole < 1.0  # stands within the word
    assert str(report.label(found, words, 6)) == "↵"


def test_a_feature_that_fires_before_a_word_is_labelled_so():
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 40, (40, 30)).astype(np.int32)
    activations = np.zeros((40, 30, 2), np.float32)
    for row in range(40):  # whatever stands at 10, token 0 follows
        tokens[row, 11] = 0
        activations[row, 10, 1] = 1.0
    strings = [" tail"] + [f" w{i}" for i in range(1, 40)]
    mask = np.ones(tokens.shape, bool)
    found = report.firings(OneHot(2), activations, mask)
    assert str(report.label(found, report.words(tokens, mask, strings), 1)) == "before: tail"


def test_telling_features_differ_and_fire_often_enough(text, found):
    tokens, mask, _ = text
    words = report.words(tokens, mask, STRINGS)
    chosen = report.telling(found, words, np.eye(len(STRINGS)), n=3, least_firings=5, most=1.0)
    assert len({feature for feature, _ in chosen}) == 3
    same = np.ones((len(STRINGS), 1))
    assert len(report.telling(found, words, same, n=3, least_firings=5, most=1.0)) == 1
    assert not report.telling(found, words, same, least_firings=10_000)


def test_describe(text, found):
    tokens, mask, activations = text
    label = report.label(found, report.words(tokens, mask, STRINGS), 0)
    feature = report.describe(found, 0, label, tokens, mask, STRINGS, np.arange(8.0))
    assert feature.maximum == pytest.approx(activations[..., 0][mask].max())
    assert sum(feature.histogram) == found.counts[0]
    peaks = [example.values[example.focus] for example in feature.top]
    assert peaks == sorted(peaks, reverse=True)
    assert all(example.tokens[example.focus] == " Anna" for example in feature.top)
    for low, high, examples in feature.intervals:
        assert all(low - 1e-3 <= e.values[e.focus] <= high + 1e-3 for e in examples)
    assert feature.raised[0] == (STRINGS[7], 7.0)
    assert feature.lowered[0] == (STRINGS[0], 0.0)
    assert not report.describe(found, 0, label, tokens, mask, STRINGS, None).raised


def test_a_feature_that_never_fires_is_refused(text, found):
    tokens, mask, _ = text
    silent = report.firings(OneHot(9), np.zeros((2, 3, 9), np.float32), np.ones((2, 3), bool))
    words = report.words(tokens, mask, STRINGS)
    with pytest.raises(ValueError, match="feature 8 never fires"):
        report.label(silent, words, 8)
    label = report.label(found, words, 0)
    with pytest.raises(ValueError, match="feature 8 never fires"):
        report.describe(silent, 8, label, tokens, mask, STRINGS, None)


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


def test_page_escapes_all_that_a_text_may_hold_and_needs_no_network(text, found):
    tokens, mask, _ = text
    words = report.words(tokens, mask, STRINGS)
    labels = {i: report.label(found, words, i) for i in (0, 5, 7)}
    logits = np.arange(8.0)
    features = [report.describe(found, i, label, tokens, mask, STRINGS, logits) for i, label in labels.items()]
    nasty = "<img src=x onerror=alert(1)>"
    html = report.page(
        features,
        title=nasty,
        facts={nasty: nasty},
        densities=found.densities,
        steered={"feature": nasty, "prompt": nasty, "before": nasty, "after": nasty},
        code=nasty,
    )
    read = Reader(html)
    assert not {"script", "img", "iframe", "link"} & set(read.tags)
    assert not [name for name in read.attributes if name.startswith("on") or name in ("src", "srcset")]
    assert "<script>alert(1)</script>" in read.text
    assert read.text.count(nasty) >= 7
    assert "http" not in html
    assert "@import" not in html


def test_page_of_a_dead_dictionary():
    html = report.page([], title="nothing", facts={}, densities=np.zeros(7))
    assert "7 never fire in this text" in html


def test_firings_take_arrays_of_jax(text):
    _, mask, activations = text
    found = report.firings(OneHot(len(STRINGS)), jnp.asarray(activations), jnp.asarray(mask))
    assert found.n_tokens == mask.sum()
