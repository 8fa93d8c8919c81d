"""What does each head do over ordinary text, and do the heads that are known come first there too?

Six scores of every head (Luger et al. 2026, "HeadVis", https://transformer-circuits.pub/2026/headvis): how much it
looks at itself, at the token before, at what came after an earlier equal token (induction); its entropy, and mean and
variance of how far back it looks; the first token left out. Induction and previous-token heads are known from text that
is made for the purpose, random words said twice: there a head has nothing else to do. Ordinary text is the harder test.

    python experiments/headvis.py [--model SmolLM2.gguf --text wikitext2/valid.txt] [--out DIR]

One minute on two cores. It prints the first heads by every score, mean and spread over draws of texts, where the known
heads come, and writes `heads.html`: the first head of each score, what it looks at and writes, with examples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import config, data, heads, models, report, weights
from interp_jax.data import corpus

KNOWN = {"induction": heads.induction_scores, "previous": heads.previous_token_scores}


@dataclass(frozen=True)
class Look:
    model: str
    n_tokens: int  # of the text that is read, of which each seed draws
    n_sequences: int
    n_positions: int
    batch_size: int
    n_shown: int  # heads in a row of the table
    n_words: int  # that a head writes, shown beside an example
    seeds: tuple[int, ...]
    out: Path
    text: Path | None = None  # by default the microworld's


def batches(tokens: np.ndarray, real: np.ndarray, size: int, begin) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for at in range(0, len(tokens), size):
        begin(f"texts {at} to {min(at + size, len(tokens))}")
        yield tokens[at : at + size], real[at : at + size]


def said_twice(tokenizer, n: int = 16, length: int = 24) -> tuple[jax.Array, jax.Array]:
    """Tokens and mask `[text position]`: the microworld's words said twice; of another tokenizer, random tokens."""
    key = jax.random.key(0)
    try:
        task = data.tasks.repeated(key, tokenizer, n)
    except ValueError:
        said = jax.random.randint(key, (n, length), 0, tokenizer.d_vocab, jnp.int32)
        tokens = jnp.concatenate([said, said], axis=1)
        return tokens, jnp.ones(tokens.shape, bool)
    return task.clean, task.mask


def known_heads(model, tokenizer) -> dict[str, np.ndarray]:
    """The scores of the heads that are known, `[layer head]`, on words said twice."""
    tokens, mask = said_twice(tokenizer)
    read = ij.capture(models.forward, "blocks.attn.pattern", output=False)
    pattern = read(model, tokens, attention_mask=mask)["blocks.attn.pattern"]
    return {name: np.asarray(score(pattern, tokens, mask)) for name, score in KNOWN.items()}


def words_written(cfg: Look, model, tokenizer, folded, tokens, real, places, head: tuple[int, int]) -> dict:
    """The words that a head makes likelier at places of texts, by (sequence, position)."""
    rows, position = places[:, 0], jnp.asarray(places[:, 1])
    vectors = heads.head_output(models.forward, *head)(
        model, jnp.asarray(tokens[rows]), position, attention_mask=jnp.asarray(real[rows])
    )
    _, ids = weights.top_tokens_written(folded, vectors, cfg.n_words)
    return {(int(s), int(p)): tokenizer.to_str_tokens(i) for (s, p), i in zip(places, np.asarray(ids), strict=True)}


def write_page(cfg: Look, model, tokenizer, survey: heads.Survey, tokens, real) -> list[tuple[int, int]]:
    """The page of the heads that come first by some score."""
    chosen = list(dict.fromkeys(survey.first(name) for name in survey.scores))
    folded = weights.fold_norms(models.weights(model))
    strings = tokenizer.to_str_tokens(range(tokenizer.d_vocab))
    shown = []
    for head in chosen:
        places = survey.places(*head)
        written = words_written(cfg, model, tokenizer, folded, tokens, real, places, head)
        shown.append(report.describe_head(survey, *head, tokens, strings, mask=real, written=written))
    facts = {"texts": f"{survey.n_sequences}", "tokens": f"{survey.n_queries:,}", "heads": f"{survey.share.size}"}
    cfg.out.mkdir(parents=True, exist_ok=True)
    page = report.heads_page(shown, survey, title=f"{Path(cfg.model).name} · heads", facts=facts)
    (cfg.out / "heads.html").write_text(page, encoding="utf-8")
    return chosen


def ordered(scores: np.ndarray) -> list[tuple[int, int]]:
    """Heads by their mean score over seeds `[seed layer head]`, the highest first."""
    mean = np.nan_to_num(scores.mean(0), nan=-np.inf)
    return [divmod(int(at), mean.shape[1]) for at in np.argsort(-mean, axis=None)]


def table_of_scores(cfg: Look, found: dict[str, np.ndarray]) -> str:
    rows = []
    for name, scores in found.items():
        first = ordered(scores)[: cfg.n_shown]
        cells = {f"{i + 1}": f"{at[0]}.{at[1]}: {runs.cell(scores[:, *at])}" for i, at in enumerate(first)}
        rows.append({"score": name.replace("_", " ")} | cells)
    return runs.table(rows)


def table_of_known(cfg: Look, known: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> str:
    """The head that is known for each kind, and where ordinary text puts it."""
    rows = []
    for name, scores in known.items():
        (layer, head), *_ = order = ordered(scores[None])
        here, first = found[name], set(order[: cfg.n_shown])
        ranks = [1 + int((of_seed > of_seed[layer, head]).sum()) for of_seed in here]
        rows.append(
            {
                "known": name,
                "head": f"{layer}.{head}",
                "words said twice": f"{scores[layer, head]:.2f}",
                "text": runs.cell(here[:, layer, head]),
                "its place": " ".join(map(str, ranks)),
                f"first {cfg.n_shown} in common": len(first & set(ordered(here)[: cfg.n_shown])),
                "rank correlation": runs.cell([runs.rank_correlation(scores, of_seed) for of_seed in here]),
            }
        )
    return runs.table(rows)


def draw(cfg: Look, known: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> go.Figure:
    """Every head: its score on words said twice against that on text, and how far it looks against how widely."""
    titles = [f"{name}: said twice, and in text" for name in known] + ["distance and entropy"]
    figure = make_subplots(1, 3, subplot_titles=titles)
    panels = [(known[name], found[name].mean(0)) for name in known]
    panels.append((found["distance"].mean(0), found["entropy"].mean(0)))
    names = [f"{layer}.{head}" for layer, head in np.ndindex(panels[0][0].shape)]
    for column, (x, y) in enumerate(panels, start=1):
        layer = np.broadcast_to(np.arange(x.shape[0])[:, None], x.shape).ravel()
        look = {"color": layer, "colorscale": "Viridis", "showscale": column == 3, "colorbar": {"title": "layer"}}
        figure.add_scatter(
            x=x.ravel(), y=y.ravel(), text=names, mode="markers", marker=look, showlegend=False, row=1, col=column
        )
    return figure.update_layout(title=f"heads of {Path(cfg.model).name}")


def main(cfg: Look) -> dict[str, dict[str, np.ndarray]]:
    """Scores `[seed layer head]` in text, and `[layer head]` on words said twice."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    text = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=cfg.n_positions, seed=0)
    tokens, real = text.tokens[:, : cfg.n_positions], text.real[:, : cfg.n_positions]
    known = known_heads(model, tokenizer)
    pages: list[list[tuple[int, int]]] = []

    def study(seed: int, begin) -> dict[str, np.ndarray]:
        drawn = np.random.default_rng(seed).permutation(len(tokens))[: cfg.n_sequences]
        read = heads.survey(models.forward, seed=seed)
        survey = read(model, batches(tokens[drawn], real[drawn], cfg.batch_size, begin))
        if seed == cfg.seeds[0]:
            begin("the page")
            pages.append(write_page(cfg, model, tokenizer, survey, tokens[drawn], real[drawn]))
        return survey.scores | {"not to the first": survey.share}

    def numbers(found: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        return {"text": found, "words said twice": known}

    def keep(found: dict[str, np.ndarray]) -> None:
        runs.write("headvis", cfg, numbers(found))

    n_sequences = min(cfg.n_sequences, len(tokens))
    steps = -(-n_sequences // cfg.batch_size) + 1
    found = runs.each(cfg.seeds, steps, "heads, seed", study, keep)
    about = (
        f"{Path(cfg.model).name}: {found['self'][0].size} heads over {n_sequences} texts of up to {cfg.n_positions} "
        f"tokens, draws {list(cfg.seeds)}, mean ± spread; the first heads by each score"
    )
    page = f"{cfg.out / 'heads.html'} shows heads {', '.join(f'{layer}.{head}' for layer, head in pages[0])}."
    tables = table_of_scores(cfg, found), table_of_known(cfg, known, found)
    runs.finish("headvis", cfg, numbers(found), draw(cfg, known, found), about, *tables, page)
    return numbers(found)


if __name__ == "__main__":
    main(config.load(Look, "configs/headvis.toml"))
