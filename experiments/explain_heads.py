"""Do offline explanations of attention heads, in words, say where the heads look in other texts?

A survey of a corpus (Luger et al. 2026, "HeadVis", https://transformer-circuits.pub/2026/headvis) gives each head's
scores and examples. The sentence of a small language (from which tokens, where, at which tokens) that says best where
it looks in some of these texts is its explanation, and what that predicts of other texts is compared with the true
attention: Pearson's r over all pairs of query and key, and the AUC of keys drawn by attention against keys drawn by
chance. Beside it: what the sentence of another head scores (shuffled), and looking at the last few tokens, as all do.
Heads share much, so that another's sentence is not far off: "apart" is r with what a head does beside the mean of all
heads that are explained, and there another's sentence has nothing to say.

    python experiments/explain_heads.py [--model SmolLM2.gguf --text wikitext2/valid.txt] [--out DIR]

A minute on two cores; three for a few heads of SmolLM2-135M. Writes `explanations.jsonl`, which `interp-jax why
--records DIR` shows beside the heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

import interp_jax as ij
from interp_jax import config, heads, models, weights
from interp_jax.data import corpus
from interp_jax.explain import HeadExplanation, explain_head, score_head

PATTERN = "blocks.attn.pattern"
RECENT = "at the last 8 tokens"  # of `explain`'s places


@dataclass(frozen=True)
class Words:
    model: str
    n_tokens: int  # of the text, of which each seed draws
    n_sequences: int  # of the survey
    n_fit: int  # of these, where the words are chosen that say best where a head looks
    n_test: int  # others, that they are tested on
    n_positions: int
    batch_size: int
    n_heads: int  # explained: the first by each score, then those that rest the least; 0: all
    n_examples: int  # of the highest peaks, and from each fifth
    n_words: int  # that a head writes, of each example
    seeds: tuple[int, ...]
    out: Path
    text: Path | None = None  # by default the microworld's


def batches(tokens: Any, real: Any, size: int) -> Iterator[tuple[Any, Any]]:
    for at in range(0, len(tokens), size):
        yield tokens[at : at + size], real[at : at + size]


def chosen(cfg: Words, found: heads.Survey) -> list[tuple[int, int]]:
    """The heads that are explained."""
    order = [divmod(int(at), found.share.shape[1]) for at in np.argsort(-found.share, axis=None)]
    first = [found.first(name) for name in ("previous", "induction", "self")]
    return list(dict.fromkeys([*first, *order]))[: cfg.n_heads or None]


def written(cfg: Words, model: Any, tokenizer: Any, tokens: Any, real: Any, places: dict) -> dict:
    """The words that heads make likelier at places `[example 2]` of texts: head -> (sequence, position) -> words."""
    addresses = tuple(f"blocks.{layer}.attn.z" for layer in sorted({layer for layer, _ in places}))
    read, w = ij.capture(models.forward, addresses, output=False), models.weights(model)
    folded, found = weights.fold_norms(w), {head: {} for head in places}
    for start, (rows, mask) in enumerate(batches(tokens, real, cfg.batch_size)):
        acts = read(model, jnp.asarray(rows), attention_mask=jnp.asarray(mask))
        for (layer, head), wanted in places.items():
            row = wanted[:, 0] - start * cfg.batch_size
            here = wanted[(row >= 0) & (row < len(rows))]
            z = acts[f"blocks.{layer}.attn.z"][here[:, 0] - start * cfg.batch_size, here[:, 1], head]
            _, ids = weights.top_tokens_written(folded, z @ w["W_O"][layer, head], cfg.n_words)
            words = [tokenizer.to_str_tokens(i) for i in np.asarray(ids)]
            found[layer, head] |= {(int(s), int(p)): some for (s, p), some in zip(here, words, strict=True)}
    return found


def patterns(cfg: Words, model: Any, tokens: Any, real: Any, some: list[tuple[int, int]]) -> np.ndarray:
    """Where some heads look, `[head text query key]`."""
    layers = sorted({layer for layer, _ in some})
    address = {f"blocks.{layer}.attn.pattern": None for layer in layers}
    read = ij.capture(models.forward, tuple(address), output=False)
    parts = []
    for rows, mask in batches(tokens, real, cfg.batch_size):
        acts = read(model, jnp.asarray(rows), attention_mask=jnp.asarray(mask))
        parts.append(np.stack([np.asarray(acts[f"blocks.{layer}.attn.pattern"][:, head]) for layer, head in some]))
    return np.concatenate(parts, axis=1)


def study(cfg: Words, model: Any, tokenizer: Any, text: Any, seed: int, begin: Any) -> tuple[list, dict]:
    """Explanations, and the scores of each, of another's and of what all heads share, `[head (r, low, high, AUC, and
    of what sets a head apart r, low, high)]`."""
    drawn = np.random.default_rng(seed).permutation(len(text.tokens))[: cfg.n_sequences + cfg.n_test]
    tokens, real = (x[drawn][:, : cfg.n_positions] for x in (text.tokens, text.real))
    train, test = slice(0, cfg.n_sequences), slice(cfg.n_sequences, None)
    begin("survey")
    read = heads.survey(models.forward, n_top=cfg.n_examples, n_sampled=cfg.n_examples, seed=seed)
    found = read(model, batches(tokens[train], real[train], cfg.batch_size))
    some, strings = chosen(cfg, found), tokenizer.to_str_tokens(range(tokenizer.d_vocab))
    begin("explanations")
    told: list[HeadExplanation] = []
    known = patterns(cfg, model, tokens[: cfg.n_fit], real[: cfg.n_fit], some)
    places = {head: found.places(*head) for head in some}
    words = written(cfg, model, tokenizer, tokens[train], real[train], places)
    for pattern, head in zip(known, some, strict=True):
        told.append(explain_head(found, *head, pattern, tokens[train], strings, mask=real[train], written=words[head]))
    begin("scores")
    seen = patterns(cfg, model, tokens[test], real[test], some)
    rng = np.random.default_rng(seed)
    others = [int(rng.choice([j for j in range(len(some)) if j != i])) for i in range(len(some))]
    kinds = {
        "own": told,
        "shuffled": [told[j] for j in others],
        "recent": [replace(one, place=RECENT, at=None, of=None) for one in told],
    }
    apart = seen - seen.mean(0)
    scores: dict[str, np.ndarray] = {}
    for name, some_of in kinds.items():
        whole, own = (
            np.array(
                [
                    score_head(one, x, tokens[test], mask=real[test], seed=seed)
                    for one, x in zip(some_of, xs, strict=True)
                ]
            )
            for xs in (seen, apart)
        )
        scores[name] = np.concatenate([whole, own[:, :3]], axis=1)  # [head 7]
    return told, scores


def main(cfg: Words) -> dict:
    """Scores `[seed head ...]` of the explanations, of other heads' and of what all share."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    text = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=cfg.n_positions, seed=0)
    said: list[list[HeadExplanation]] = []

    def of_seed(seed: int, begin: Any) -> dict:
        told, scores = study(cfg, model, tokenizer, text, seed, begin)
        said.append(told)
        return scores

    found = runs.each(cfg.seeds, 3, "heads", of_seed, lambda found: runs.write("explain_heads", cfg, found))
    cfg.out.mkdir(parents=True, exist_ok=True)
    lines, rows = [], []
    for one, (r, low, high, auc, *_) in sorted(
        zip(said[0], found["own"][0], strict=True), key=lambda pair: -pair[1][0]
    ):
        unit, scores = one.layer * model.config.n_heads + one.head, {"correlation": r, "auc": auc}
        lines.append({"records": PATTERN, "unit": unit, "text": str(one), "explainer": "survey", "scores": scores})
        interval = f"{r:.2f} ({low:.2f} to {high:.2f})"
        rows.append({"head": f"{one.layer}.{one.head}", "r": interval, "AUC": f"{auc:.2f}", "explanation": str(one)})
    (cfg.out / "explanations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    whole = [
        {"explanation": name, "r": runs.cell(values[..., 0].mean(1)), "AUC": runs.cell(values[..., 3].mean(1))}
        | {"r above 0.5": runs.cell((values[..., 0] > 0.5).mean(1)), "r of the worst": runs.cell(values[..., 0].min(1))}
        | {
            "r apart": runs.cell(values[..., 4].mean(1)),
            "its interval above 0": runs.cell((values[..., 5] > 0).mean(1)),
        }
        for name, values in found.items()
    ]
    about = (
        f"{cfg.model}: where {len(said[0])} heads look in {cfg.n_test} texts that nothing was made from, mean over "
        f"heads ± spread over draws of texts {list(cfg.seeds)}"
    )
    figure = go.Figure(layout={"title": f"Heads in words, {Path(cfg.model).name}", "yaxis_title": "r with attention"})
    for name, values in found.items():
        figure.add_box(y=values[..., 0].ravel(), name=name, boxpoints="all")
    alone = "\n".join(f"{row['head']:>6}  r {row['r']}  AUC {row['AUC']}  {row['explanation']}" for row in rows)
    runs.finish("explain_heads", cfg, found, figure, about, runs.table(whole), f"The first draw:\n{alone}")
    return found


if __name__ == "__main__":
    main(config.load(Words, "configs/explain_heads.toml"))
