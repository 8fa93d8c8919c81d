"""Where does a model keep the number of a subject until its verb, and what carries it there?

`today the dogs near the tree` -> are, not is. Each sentence has a twin whose subject has the other number. A clean
state that is put into the run of the twin brings back a share of the difference of the two verbs' logits (Finlayson et
al. 2021, https://arxiv.org/abs/2106.06087): 0 nothing, 1 all. This is told by layer, at the subject and at the last
word, for states and for what attention and MLPs write, and by head; beside it how often the right verb wins.

    python experiments/agreement.py [--model gpt2 --data ../shared/data/subject-verb] [--out DIR]

A minute on two cores with sentences of the microworld, which are those without `--data`. With it: files of pairs as
Marks et al. 2024 publish (https://arxiv.org/abs/2403.19647; `The uncles behind the dogs` -> do, not does), or a folder
and its *_test.json. It prints a table and a paragraph for each set.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

from interp_jax import config, data, metrics, models, patching

STATES = {"residual": "blocks.resid_pre", "attention": "blocks.attn_out", "MLP": "blocks.mlp_out"}
PLACES = {"subject": "#d97706", "end": "#0f6fb8"}  # and the colours of their curves
HEADS = "blocks.attn.z", ("layer", "head")
CHUNK = 256  # prompts that run at once


@dataclass(frozen=True)
class Agreement:
    model: str
    data: tuple[Path, ...]
    n_sentences: int
    n: int  # pairs that are patched, of each set and seed
    seeds: tuple[int, ...]
    out: Path


def sets(cfg: Agreement, tokenizer) -> dict[str, tuple[data.tasks.Task, dict[str, int]]]:
    """Every set of pairs, and how many were left out of it, by reason."""
    if not cfg.data:
        task = data.tasks.agreement(jax.random.key(cfg.seeds[0]), tokenizer, n=cfg.n_sentences)
        numbers = zip(task.attributes["number"], task.attributes["attractor_number"], strict=True)
        case = np.array([f"{subject}_{attractor}" for subject, attractor in numbers])
        return {"microworld": (replace(task, attributes={"case": case}), {})}
    files: list[Path] = []
    for path in cfg.data:
        files += sorted(path.glob("*_test.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"--data {', '.join(map(str, cfg.data))}: no *_test.json there; name the files")
    return {file.stem: data.pairs.task(file, tokenizer) for file in files}


def behaviour(model, task: data.tasks.Task) -> dict:
    """Logit of the right verb less that of the wrong one: how often it is positive, in all and by case; its mean."""
    found = np.zeros(0)
    for start in range(0, len(task.last), CHUNK):
        part = jax.tree.map(lambda x: x[start : start + CHUNK], task)  # noqa: B023
        logits = models.forward(model, part.clean, attention_mask=part.mask, logits_at=part.last)
        found = np.append(found, metrics.logit_diff(part.answers, part.distractors)(logits))
    cases = task.attributes.get("case", np.full(len(found), "all"))
    by_case = {str(case): float((found[cases == case] > 0).mean()) for case in np.unique(cases)}
    return {"accuracy": float((found > 0).mean()), "by_case": by_case, "logit_difference": float(found.mean())}


def patched(cfg: Agreement, model, task: data.tasks.Task, seed: int, begin) -> dict[str, np.ndarray]:
    """What comes back, 0 as corrupted and 1 as clean: by state `[place layer]`, by head `[layer head]`; an estimate."""
    rows = jax.random.permutation(jax.random.key(seed), len(task.last))[: cfg.n]
    task = jax.tree.map(lambda x: x[rows], task)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    args = model, task.clean, task.corrupted
    difference = metrics.logit_diff(task.answers, task.distractors)
    clean, corrupted = (difference(f(model, tokens)).mean() for tokens in (task.clean, task.corrupted))
    metric = metrics.normalized(difference, clean, corrupted)

    subject = task.positions["changed" if "changed" in task.positions else "subject"]
    found = {}
    for name, site in STATES.items():
        begin(name)
        effects = patching.activation_patch(f, metric, site, ("batch", "layer", "position"))(*args)
        prompts = np.arange(len(rows))
        by_place = [effects[prompts, :, place].mean(0) for place in (subject, task.positions["end"])]
        found[name] = np.stack(by_place)
    begin("heads")
    found["heads"] = np.asarray(patching.activation_patch(f, metric, *HEADS)(*args))
    found["estimated"] = np.asarray(patching.attribution_patch(f, metric, *HEADS)(*args))
    return found


def about(name: str, of_set: dict) -> str:
    """How many pairs a set has, and what the model makes of them."""
    by_case = ", ".join(f"{case} {share:.3f}" for case, share in of_set["by_case"].items())
    return (
        f"{name}: {of_set['pairs']} pairs, left out: {of_set['left_out'] or 'none'}; logit difference "
        f"{of_set['logit_difference']:.2f}, accuracy {of_set['accuracy']:.3f}; by case: {by_case}"
    )


def table(found: dict[str, np.ndarray]) -> str:
    """A row for each kind of state and place, a column for each layer."""
    curves = {f"{state} at the {place}": found[state][:, i] for state in STATES for i, place in enumerate(PLACES)}
    return runs.layer_table("brought back, by layer", curves)


def story(found: dict[str, np.ndarray]) -> str:
    """Where the number is kept, and which heads carry it; the first axis of `found` is the seed."""
    subject, end = found["residual"].mean(0)
    later = np.flatnonzero(end > subject)
    if np.array_equal(subject, end):
        where = "it is the last word"
    elif len(later):
        where = f"from layer {later[0]} on the last word has more of it"
    else:
        where = "the last word never has more of it"

    heads = found["heads"].mean(0)
    most = zip(*np.unravel_index(np.argsort(-heads, axis=None)[:3], heads.shape), strict=True)
    best = ", ".join(f"{layer}.{head} ({heads[layer, head]:.2f})" for layer, head in most)
    ranks = [runs.rank_correlation(*pair) for pair in zip(found["heads"], found["estimated"], strict=True)]
    return (
        f"The subject's state before layer 0 brings back {subject[0]:.2f}; {where}. The heads that bring back most are "
        f"{best}. Attribution patching ranks heads as patching does, with a correlation (Spearman's) of "
        f"{runs.cell(ranks)}."
    )


def draw(cfg: Agreement, found: dict[str, dict[str, np.ndarray]]) -> go.Figure:
    """A row for each set: curves of each kind of state by layer, and the heads."""
    titles = [f"{name}, {kind}" for name in found for kind in (*STATES, "heads")]
    figure = make_subplots(len(found), len(STATES) + 1, subplot_titles=titles)
    for row, of_set in enumerate(found.values(), start=1):
        for column, state in enumerate(STATES, start=1):
            for i, (place, colour) in enumerate(PLACES.items()):
                look = {"name": place, "line_color": colour, "showlegend": row == column == 1}
                runs.curve(figure, of_set[state][:, i], **look, row=row, col=column)
        heads = of_set["heads"].mean(0)
        figure.add_heatmap(z=heads, colorscale="RdBu", zmid=0, showscale=False, row=row, col=len(STATES) + 1)
    figure.update_xaxes(title="layer").update_xaxes(title="head", col=len(STATES) + 1)
    figure.update_yaxes(title="layer", col=len(STATES) + 1)
    figure.update_layout(title=f"{cfg.model}: share of the difference brought back", height=320 * len(found) + 80)
    return figure


def main(cfg: Agreement) -> dict:
    """The numbers of every set: its accuracy, and what is brought back, with the seed as the first axis."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    numbers, patched_sets, text = {}, {}, []
    for name, (task, left_out) in sets(cfg, tokenizer).items():
        of_set = {"pairs": len(task.last), "left_out": left_out} | behaviour(model, task)

        def keep(found: dict, name=name, of_set=of_set) -> None:
            numbers[name] = of_set | {kind: values.tolist() for kind, values in found.items()}  # [seed place layer]
            runs.write("agreement", cfg, {"sets": numbers})

        found = runs.each(cfg.seeds, len(STATES) + 1, f"{name}, seed", partial(patched, cfg, model, task), keep)
        patched_sets[name] = found
        text += [about(name, of_set), table(found), story(found)]
    header = (
        f"{cfg.model}: share of the logit difference that a clean state brings back, by layer, mean ± spread over "
        f"seeds {list(cfg.seeds)}, each of {cfg.n} pairs"
    )
    runs.finish("agreement", cfg, {"sets": numbers}, draw(cfg, patched_sets), header, *text)
    return numbers


if __name__ == "__main__":
    main(config.load(Agreement, "configs/agreement.toml"))
