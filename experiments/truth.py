"""Does a model hold whether a statement is true, and is it one direction: does it tell the truth about other things?

A probe reads true or false from the state of a statement's last token (Marks and Tegmark 2023, "The geometry of truth",
https://arxiv.org/abs/2310.06824): logistic regression, and the difference of the two classes' means. It is trained on
one topic and tested on every other, and on other subjects of its own. Beside it stands what the model says itself: the
share of pairs in which the true statement is likelier, in log probability a token, than the false one.

    python experiments/truth.py [--model smollm2.gguf] [--out DIR]

A minute on two cores. The microworld's facts are true by construction, and it knows them; other models are asked about
relations (LRE's) and TruthfulQA.
"""

from dataclasses import dataclass
import itertools
from pathlib import Path
import random

import concepts
import depths
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, models, probes
from interp_jax.data import statements


@dataclass(frozen=True)
class Truth:
    model: str
    n: int  # statements of a topic, half of them false
    l2: float
    seeds: tuple[int, ...]  # of the statements and of the split
    out: Path


def topics(cfg: Truth, seed: int) -> dict[str, list[statements.Statement]]:
    """Statements by topic, each true one followed by a false one."""
    rng = random.Random(seed)
    if not cfg.model.startswith("microworld"):
        found = {
            name.removeprefix("truth of "): statements.of_relation(rng, depths.data("relations") / file, cfg.n)
            for name, file in concepts.RELATIONS.items()
        }
        file = depths.data("truthfulqa") / "TruthfulQA.csv"
        return found | {"TruthfulQA": statements.of_truthfulqa(rng, file, cfg.n)}
    found = {}
    for one in statements.of_microworld(rng, 12 * cfg.n):
        found.setdefault(one.topic, []).append(one)
    return {name: found[name][: cfg.n] for name in sorted(found)}


def likelihood(model, tokenizer, texts: list[str], chunk: int = 16) -> np.ndarray:
    """The mean log probability of each text's tokens after the first, in nats."""
    tokens, mask, _ = models.tokenize(tokenizer, texts)

    @jax.jit
    def of(model, tokens, mask):
        told = jax.nn.log_softmax(models.forward(model, tokens, attention_mask=mask)[:, :-1].astype(jnp.float32))
        each = jnp.take_along_axis(told, tokens[:, 1:, None], axis=-1)[..., 0]
        return each.mean(1, where=mask[:, :-1])

    return np.concatenate([of(model, tokens[i : i + chunk], mask[i : i + chunk]) for i in range(0, len(texts), chunk)])


def study(cfg: Truth, model, tokenizer, seed: int, begin) -> dict[str, np.ndarray]:
    """Accuracies `[train test layer]` of both probes, and how often the model finds the true one likelier `[topic]`."""
    found = topics(cfg, seed)
    x, sets, likelier = {}, {}, []
    for name, these in found.items():
        begin(name)
        sets[name] = concepts.of_statements(these)
        x[name] = concepts.states(model, tokenizer, sets[name])
        said = likelihood(model, tokenizer, [one.text for one in these])
        likelier.append((said[::2] > said[1::2]).mean())
    begin("probes")
    kinds = {"logistic": lambda x, y, train: probes.logistic(x, y, l2=cfg.l2, weights=train, n_classes=2)}
    kinds |= {"means": lambda x, y, train: probes.mass_mean(x, y, weights=train, n_classes=2)}
    told = {kind: np.zeros((len(sets), len(sets), len(next(iter(x.values()))))) for kind in kinds}
    for (i, here), kind in itertools.product(enumerate(sets), kinds):
        train = concepts.split(sets[here], seed)
        probe = kinds[kind](x[here], sets[here].y, train)
        for j, there in enumerate(sets):
            tested = ~train if there == here else np.ones(len(sets[there].y), bool)
            told[kind][i, j] = probes.scores(probe, x[there], sets[there].y, weights=tested).accuracy
    return told | {"likelier": np.array(likelier)}


def by_layer(told: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy `[seed layer]` on a topic's own other subjects, and on other topics, of `[seed train test layer]`."""
    own = np.eye(told.shape[1], dtype=bool)
    return {"own topic": told[:, own].mean(1), "other topics": told[:, ~own].mean(1)}


def story(cfg: Truth, curves: dict[str, np.ndarray], likelier: np.ndarray) -> str:
    own, other = curves["own topic, logistic"], curves["other topics, logistic"]
    layer = int(own.mean(0).argmax())
    return (
        f"The true statement is the likelier one in {likelier.mean():.0%} of pairs. Logistic regression tells truth "
        f"best after layer {layer}: {runs.cell(own[:, layer])} of other subjects of its topic are told rightly, and "
        f"{runs.cell(other[:, layer])} of other topics; 0.50 is chance, embeddings give {runs.cell(own[:, 0])}."
    )


def draw(cfg: Truth, curves: dict[str, np.ndarray]) -> go.Figure:
    figure = go.Figure(layout={"title": f"Probes of truth, {Path(cfg.model).name}"})
    for name, values in curves.items():
        runs.curve(figure, values, name=name, mode="lines+markers")
    figure.add_hline(0.5, line_dash="dot")
    return figure.update_layout(xaxis_title="after layer (0: embeddings)", yaxis_title="accuracy")


def main(cfg: Truth) -> dict[str, np.ndarray]:
    """What `study` finds, of each seed."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    names = list(topics(cfg, cfg.seeds[0]))

    def keep(found: dict) -> None:
        runs.write("truth", cfg, {"topics": names, **found})

    found = runs.each(
        cfg.seeds,
        len(names) + 1,
        "truth, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        keep,
    )
    kinds = ("logistic", "means")
    curves = {f"{which}, {kind}": values for kind in kinds for which, values in by_layer(found[kind]).items()}
    layer = int(curves["own topic, logistic"].mean(0).argmax())
    about = (
        f"{cfg.model}: accuracy of probes trained on the topic of the row and tested on that of the column, after "
        f"layer {layer}, seeds {list(cfg.seeds)}, mean ± spread; on the diagonal other subjects"
    )
    rows = [
        {"trained on": here}
        | {there: runs.cell(found["logistic"][:, i, j, layer]) for j, there in enumerate(names)}
        | {"true one likelier": runs.cell(found["likelier"][:, i])}
        for i, here in enumerate(names)
    ]
    runs.finish(
        "truth",
        cfg,
        {"topics": names, **found, "curves": curves},
        draw(cfg, curves),
        about,
        runs.table(rows),
        runs.layer_table("accuracy after layer", curves),
        story(cfg, curves, found["likelier"]),
    )
    return found


if __name__ == "__main__":
    main(config.load(Truth, "configs/truth.toml"))
