"""`interp-jax patch`: activation patching of one site, as a map in the terminal, a page and a file of numbers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_jax.data.tasks import Task


def patch(
    clean: str | None = None,
    corrupted: str | None = None,
    answer: str | None = None,
    distractor: str | None = None,
    model: str = "microworld",
    site: str = "blocks.resid_pre",
    over: tuple[str, ...] = ("layer", "position"),
    n: int = 64,
    out: Path = Path("patch"),
    seed: int = 0,
) -> None:
    """Find where a model computes an answer: patch each place of a corrupted run with the clean run's value.

    The map says how much of the difference of the two answers' logits comes back: 0 as corrupted, 1 as clean. Without
    prompts, it is the mean over pairs of the microworld's task of indirect objects.

    Args:
        clean: A prompt, as "When Mary and John went to the store, John gave a drink to".
        corrupted: Another of as many tokens, which changes the answer.
        answer: What the clean prompt is to go on with, one token, as " Mary".
        distractor: What the corrupted prompt is to go on with, one token, as " John".
        model: A shipped model (microworld), a local Hugging Face folder, or a hub id.
        site: What to patch, such as blocks.attn_out, blocks.mlp_out or blocks.attn.z.
        over: Axes of the map, such as layer position, or layer head; the others are patched whole.
        n: Pairs of the microworld's task, where no prompts are given.
        out: Folder for the page and the numbers.
        seed: Seed of the task and of the intervals.
    """
    from functools import partial

    import jax
    import numpy as np

    from interp_jax import metrics, models, patching, report
    from interp_jax.cli import output, subject

    output.check_writable(out)
    loaded, tokenizer = subject.open_model(model)
    given = {"--clean": clean, "--corrupted": corrupted, "--answer": answer, "--distractor": distractor}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(f"patch: {', '.join(missing)} missing; give all of {', '.join(given)}, or none of them")
    if not over:
        raise ValueError("patch: --over names no axis; give at least one, such as layer")
    pairs = _task(tokenizer, n, seed) if missing else _pair(tokenizer, *given.values())

    f = partial(models.forward, attention_mask=pairs.mask, logits_at=pairs.last)
    difference = metrics.logit_diff(pairs.answers, pairs.distractors)
    score = jax.jit(lambda model, tokens: difference(f(model, tokens)))
    ends = [np.asarray(score(loaded, tokens)) for tokens in (pairs.clean, pairs.corrupted)]
    print(f"logit difference {ends[0].mean():.2f} clean, {ends[1].mean():.2f} corrupted, {len(ends[0])} pairs")
    metric = metrics.normalized(difference, *(end.mean() for end in ends))
    effects = patching.activation_patch(f, metric, site, ("batch", *over))(loaded, pairs.clean, pairs.corrupted)
    found = {"mean": np.asarray(effects).mean(0)}
    if len(effects) > 1:
        found = patching.summarize(jax.random.key(seed), effects)._asdict()

    labels = _labels(found["mean"], over, tokenizer, pairs)
    _print(found["mean"], over, labels)
    numbers = {name: values.tolist() for name, values in found.items()}
    about = {"model": model, "site": site, "over": over, "n_pairs": len(effects), "seed": seed}
    output.write(out / "effects.json", json.dumps(about | numbers, indent=2) + "\n")
    page = report.effects_page(
        found["mean"],
        over,
        labels,
        title=f"{Path(model).name} · {site}",
        interval=(found["low"], found["high"]) if "low" in found else None,
        about=_about(len(effects)),
    )
    output.write(out / "index.html", page)
    print(f"the page: {out / 'index.html'}")


def _about(n: int) -> str:
    """What the numbers of the page are."""
    what = "How much of the difference of the two answers' logits comes back where the clean run's value is put"
    scale = f"{what}: 0 as in the corrupted run, 1 as in the clean one"
    return f"{scale}." if n == 1 else f"{scale}; means over {n} pairs, with an interval of the mean."


def _task(tokenizer: Any, n: int, seed: int) -> "Task":
    """Pairs of one wording, so that a position is one word's in all of them."""
    import jax

    from interp_jax import data

    try:
        return data.tasks.ioi(jax.random.key(seed), tokenizer, n=n, order="ABBA", template=0)
    except ValueError as error:
        raise ValueError(f"patch: {error}; give --clean, --corrupted, --answer and --distractor") from None


def _pair(tokenizer: Any, clean: Any, corrupted: Any, answer: Any, distractor: Any) -> "Task":
    """One pair of the user's own prompts."""
    import jax.numpy as jnp

    from interp_jax import models
    from interp_jax.data.tasks import Task

    rows = [models.tokenize(tokenizer, [prompt]) for prompt in (clean, corrupted)]
    lengths = [row[0].shape[1] for row in rows]
    if lengths[0] != lengths[1]:
        shown = [" ".join(map(repr, tokenizer.to_str_tokens(prompt))) for prompt in (clean, corrupted)]
        raise ValueError(
            f"patch: clean has {lengths[0]} tokens ({shown[0]}) and corrupted {lengths[1]} ({shown[1]}); "
            "give prompts of one length, aligned token by token"
        )
    (tokens, mask, last), (other, _, _) = rows
    right, wrong = (jnp.array([tokenizer.token_id(word)]) for word in (answer, distractor))
    return Task(tokens, other, mask, last, right, wrong, positions={}, accepted=right[:, None])


def _labels(values: Any, over: tuple[str, ...], tokenizer: Any, pairs: "Task") -> list[list[str]]:
    """What each index of the map's axes is called; a position also by its word in the first clean prompt."""
    words = tokenizer.to_str_tokens(pairs.clean[0])
    numbered = [[str(i) for i in range(size)] for size in values.shape]
    for axis, name in enumerate(over):
        if name in ("position", "query", "key"):
            numbered[axis] = [f"{i} {word}" for i, word in enumerate(words)]
    return numbered


def _print(values: Any, over: tuple[str, ...], labels: list[list[str]]) -> None:
    """Prints a map of two axes; of more or fewer nothing, since the terminal has no room for it."""
    if len(over) != 2:
        return
    print(f"\n{over[0]} down, {over[1]} across")
    for label, row in zip(labels[0], values.tolist(), strict=True):
        print(f"{label:>12}", " ".join(f"{value:5.2f}" for value in row))
    print(f"\n{over[1]}: {', '.join(labels[1])}")
