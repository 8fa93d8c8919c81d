"""Agreement of subject and verb: where a model keeps the subject's number, and what carries it to the verb.

`python experiments/agreement.py [--model gpt2 --data ../shared/data/subject-verb] [--out DIR]`. `--data`: files of
pairs as Marks et al. 2024 publish, arXiv:2403.19647 (`The uncles behind the dogs` -> do, not does), or a folder and
its *_test.json. Without: sentences of the microworld (`today the dogs near the tree` -> are). Shown: accuracy by case,
and how much of the difference of the two verbs' logits a clean state brings back in the corrupted run (Finlayson et
al. 2021, arXiv:2106.06087), by layer at the subject whose number changes and at the last word, and by head.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from plotly.subplots import make_subplots
import runs
from scipy.stats import spearmanr

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
        numbers = (task.attributes[name] for name in ("number", "attractor_number"))
        case = np.array(["_".join(pair) for pair in zip(*numbers, strict=True)])
        return {"microworld": (replace(task, attributes={"case": case}), {})}
    files = [file for path in cfg.data for file in (sorted(path.glob("*_test.json")) if path.is_dir() else [path])]
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
    pairs, difference = (task.clean, task.corrupted), metrics.logit_diff(task.answers, task.distractors)
    metric = metrics.normalized(difference, *(difference(f(model, tokens)).mean() for tokens in pairs))
    subject = task.positions["changed" if "changed" in task.positions else "subject"]
    found = {}
    for name, site in STATES.items():
        begin(name)
        effects = patching.activation_patch(f, metric, site, ("batch", "layer", "position"))(model, *pairs)
        at = (effects[np.arange(len(rows)), :, place] for place in (subject, task.positions["end"]))
        found[name] = np.stack([values.mean(0) for values in at])
    begin("heads")
    found["heads"] = np.asarray(patching.activation_patch(f, metric, *HEADS)(model, *pairs))
    return found | {"estimated": np.asarray(patching.attribution_patch(f, metric, *HEADS)(model, *pairs))}


def tell(name: str, about: dict, found: dict[str, np.ndarray]) -> None:
    """Prints a set's table and what it says; the first axis of `found` is the seed."""
    print(f"\n{name}: {about['pairs']} pairs, left out: {about['left_out'] or 'none'}; ", end="")
    by_case = ", ".join(f"{case} {share:.3f}" for case, share in about["by_case"].items())
    print(f"logit difference {about['logit_difference']:.2f}, accuracy {about['accuracy']:.3f}\nby case: {by_case}\n")
    for state in STATES:
        for place, mean, spread in zip(PLACES, found[state].mean(0), runs.spread(found[state]), strict=True):
            print(f"{state:10} {place:8}", " ".join(f"{m:6.2f} ±{s:4.2f}" for m, s in zip(mean, spread, strict=True)))
    subject, end = found["residual"].mean(0)
    later = [layer for layer in range(len(end)) if end[layer] > subject[layer]]
    where = f"from layer {later[0]} on the last word has more of it" if later else "the last word never has more of it"
    where = "it is the last word" if np.array_equal(subject, end) else where
    heads = found["heads"].mean(0)
    most = zip(*np.unravel_index(np.argsort(-heads, axis=None)[:3], heads.shape), strict=True)
    best = ", ".join(f"{layer}.{head} ({heads[layer, head]:.2f})" for layer, head in most)
    ranks = [spearmanr(np.ravel(a), np.ravel(b))[0] for a, b in zip(found["heads"], found["estimated"], strict=True)]
    print(f"\nThe subject's state before layer 0 brings back {subject[0]:.2f}; {where}. The heads that bring")
    print(f"back most are {best}. Attribution patching ranks heads as patching does, with a")
    print(f"correlation (Spearman's) of {np.mean(ranks):.2f} ±{runs.spread(ranks):.2f}.")


def main(cfg: Agreement) -> dict:
    model, tokenizer = models.load(cfg.model, dtype="float32")
    posed = sets(cfg, tokenizer)
    print(f"{cfg.model}: share of the logit difference that a clean state brings back, by layer, mean ± deviation over")
    print(f"seeds {list(cfg.seeds)}, each of {cfg.n} pairs")
    figure = make_subplots(len(posed), 4, subplot_titles=[f"{s}, {k}" for s in posed for k in (*STATES, "heads")])
    numbers = {}
    for row, (name, (task, left_out)) in enumerate(posed.items(), start=1):
        about = {"pairs": len(task.last), "left_out": left_out} | behaviour(model, task)

        def keep(found: dict, name=name, about=about) -> None:
            numbers[name] = about | {kind: values.tolist() for kind, values in found.items()}  # [seed place layer]
            runs.write(cfg.out / "agreement.json", cfg, {"sets": numbers})

        found = runs.each(cfg.seeds, len(STATES) + 1, f"{name}, seed", partial(patched, cfg, model, task), keep)
        tell(name, about, found)
        for column, state in enumerate(STATES, start=1):
            for place, mean, spread in zip(PLACES, found[state].mean(0), runs.spread(found[state]), strict=True):
                line = {"name": place, "line_color": PLACES[place], "showlegend": row == column == 1}
                figure.add_scatter(y=mean, error_y={"array": spread}, **line, row=row, col=column)
        figure.add_heatmap(z=found["heads"].mean(0), colorscale="RdBu", zmid=0, showscale=False, row=row, col=4)
    figure.update_layout(title=f"{cfg.model}: share of the difference brought back", height=320 * len(posed) + 80)
    figure.write_html(cfg.out / "agreement.html")
    return numbers


if __name__ == "__main__":
    main(config.load(Agreement, "configs/agreement.toml"))
