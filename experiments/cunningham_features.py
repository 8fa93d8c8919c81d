"""Parts 2 and 3 of `cunningham.py`: how many features carry an answer, and what one feature is.

Part 2. Pairs `when Mary and John went to the park , John gave a ring to` and the same with another indirect object.
Features of the residual stream are moved to their values in the other sentence, at all positions, in greedy order, and
KL(patched || other) is measured at the answer: the fewer features bring it down, the better they divide what the model
does. Principal components are what is to be beaten.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from cunningham_dictionaries import Kinds, Training, read, trained
import jax
import jax.numpy as jnp
import numpy as np
import runs

from interp_jax import data, dictionaries, intervene, metrics, models
from interp_jax.data import corpus
from interp_jax.interventions import at, scale

SHARES = (0.9, 0.75, 0.5, 0.25, 0.1)  # of the KL before anything is patched
SHOWN = (0, 1, 2, 4, 8, 12, 16, 24, 32)  # numbers of features in the table
SEARCHES = {"own": "each pair has its own features", "shared": "all pairs share them"}

Curves = dict[str, dict[str, list]]


@dataclass(frozen=True)
class Indirect:
    layer: int
    ratio: int
    sparsities: tuple[float, ...]
    n_tokens: int
    n_pairs: int
    n_patched: int


class Pairs(NamedTuple):
    """Sentences and the same with another indirect object, for a model, with what to train dictionaries on."""

    model: Any
    site: str
    x: np.ndarray  # [token d_model]
    f: Callable[..., jax.Array]  # (model, tokens) -> logits after the last word
    tokens: jax.Array  # [pair position]
    other: jax.Array
    answers: jax.Array  # [pair]
    other_answers: jax.Array


def pose(cfg: Indirect) -> Pairs:
    """The microworld's sentences, each with a name in place of its indirect object that it does not hold."""
    model, tokenizer = models.load("microworld", dtype="float32")
    site = f"blocks.{cfg.layer}.resid_post"
    text = corpus.read(tokenizer, None, n_tokens=cfg.n_tokens, n_positions=64, seed=0)
    task = data.tasks.ioi(jax.random.key(0), tokenizer, n=cfg.n_pairs)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)

    names, rng = np.asarray([task.answers, task.distractors]), np.random.default_rng(0)
    others = jnp.asarray([rng.choice(np.setdiff1d(names, pair)) for pair in names.T])
    changed = task.clean.at[jnp.arange(cfg.n_pairs), task.columns["io"]].set(others)
    return Pairs(model, site, read(model, site, text), f, task.clean, changed, task.answers, others)


def right_answers(pairs: Pairs) -> tuple[float, float]:
    """How often the model says the indirect object, in the sentences and in the others."""
    said = [pairs.f(pairs.model, tokens).argmax(-1) for tokens in (pairs.tokens, pairs.other)]
    return float((said[0] == pairs.answers).mean()), float((said[1] == pairs.other_answers).mean())


def curves(cfg: Indirect, training: Training, pairs: Pairs) -> Curves:
    """By dictionary, KL in nats after each feature, `own` and `shared` `[seed n_patched + 1]`, and after `all`."""
    d_in = pairs.x.shape[-1]
    kinds: Kinds = {f"tied {sparsity}": trained(training, pairs.x, cfg.ratio, sparsity) for sparsity in cfg.sparsities}
    kinds["PCA"] = [dictionaries.PCA.create(jax.random.key(0), d_in, d_in, x=pairs.x)]
    found: Curves = {}
    for name, each in kinds.items():
        active = [np.asarray(d.encode(pairs.x[:4096])) != 0 for d in each]
        found[name] = {"l0": [float(one.sum(-1).mean()) for one in active]}

    target = pairs.f(pairs.model, pairs.other)

    def to_target(patched: jax.Array) -> jax.Array:
        return metrics.kl(patched)(target)

    for kind in SEARCHES:
        options = {"n_features": cfg.n_patched, "shared": kind == "shared"}
        for name, each in kinds.items():
            patches = [dictionaries.patch_features(pairs.f, to_target, pairs.site, d, **options) for d in each]
            patched = [patch(pairs.model, pairs.other, pairs.tokens) for patch in patches]
            found[name][kind] = [one.scores.mean(-1).tolist() for one in patched]
            found[name]["all"] = [float(one.complete.mean()) for one in patched]
    return found


def fewest(curves: list[list[float]], share: float) -> list[float]:
    """How many features bring the KL below a share of what it was, by seed; inf where those patched do not."""
    below = np.asarray(curves) < share * np.asarray(curves)[:, :1]
    return np.where(below.any(1), below.argmax(1), np.inf).tolist()


def told(found: Curves, search: str) -> list[str]:
    """What a search found: a title, the KL after so many features, how many it takes, and who needs fewer than PCA."""
    n_patched = len(found["PCA"][search][0]) - 1
    needs = {name: {share: fewest(one[search], share) for share in SHARES} for name, one in found.items()}
    after, taken = [], []
    for name, one in found.items():
        kl = {str(n): runs.cell([curve[n] for curve in one[search]]) for n in SHOWN if n <= n_patched}
        after.append({"KL after": name, "l0": f"{np.mean(one['l0']):.1f}"} | kl | {"all": runs.cell(one["all"])})
        enough = {f"{share:.0%}": runs.cell(n) if np.isfinite(n).all() else "more" for share, n in needs[name].items()}
        taken.append({"features until": name} | enough)

    sentences = []
    for name in found:
        fewer = [f"{share:.0%}" for share in SHARES if np.mean(needs[name][share]) < np.mean(needs["PCA"][share])]
        if name != "PCA":
            sentences.append(f"{name} needs fewer features than PCA to {', '.join(fewer) or 'none of these shares'}.")
    title = (
        f"KL in nats after so many features, {SEARCHES[search]}; then how many bring it below a share of what it was"
    )
    return [title, runs.table(after), runs.table(taken), *sentences]


def feature(model: Any, tokenizer: Any, site: str, d: Any, text: corpus.Corpus) -> dict[str, Any]:
    """Part 3: of the features that fire on one token in 200 or more, that which is most of all one word's.

    Given are its number, how often it fires, the shares of it that fall on its ten first tokens, and by how much the
    logits of seven tokens rise, and of seven fall, where it fires and is taken out.
    """
    c, words = np.asarray(d.encode(read(model, site, text))), text.tokens[text.mask]
    by_word = np.stack([c[words == word].sum(0) for word in range(tokenizer.d_vocab)])  # [word feature]
    shares = by_word / np.maximum(c.sum(0), 1e-9)
    density = (c > 0).mean(0)
    i = int(np.where(density > 1 / 200, shares.max(0), 0).argmax())

    fires = np.zeros(text.mask.shape, bool)
    fires[text.mask] = c[:, i] > 0
    some = np.flatnonzero(fires.any(1))[:16]  # rows of the text
    off = dictionaries.splice(d, edit=at(scale(0.0), feature=i))
    without = intervene(models.forward, {site: off})(model, text.tokens[some])
    change = np.asarray(without - models.forward(model, text.tokens[some]))[fires[some]].mean(0)

    strings = [repr(string) for string in tokenizer.to_str_tokens(range(tokenizer.d_vocab))]
    order = np.argsort(change)
    return {
        "feature": i,
        "site": site,
        "density": float(density[i]),
        "tokens": {strings[token]: float(shares[token, i]) for token in np.argsort(-shares[:, i])[:10]},
        "logits": {strings[token]: float(change[token]) for token in [*order[:7], *order[-7:]]},
    }


def told_of_feature(one: dict[str, Any]) -> list[str]:
    """What one feature is: when it fires, and what the model says less and more of without it."""
    about = f"Feature {one['feature']} of {one['site']} fires on {one['density']:.1%} of tokens."
    shares = {token: f"{share:.0%}" for token, share in one["tokens"].items()}
    changes = {token: f"{change:+.2f}" for token, change in one["logits"].items()}
    return [about, runs.table([{"token": "its share"} | shares]), runs.table([{"token": "logit without it"} | changes])]
