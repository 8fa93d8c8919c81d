"""`interp-jax explain`: what units fire on, in words, with scores that say whether the words hold."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from interp_jax.explain import Cost, Explained, Method, Records

TRIED = 3  # units by whose texts the cost of all is told
SHOWN = ("simulation", "detection", "fuzzing", "intruder", "surprisal")


def explain(
    target: Annotated[Path, tyro.conf.Positional],
    records: str | None = None,
    units: tuple[int, ...] = (),
    n: int = 12,
    least: int = 200,
    explainer: str = "marks",
    scores: tuple[str, ...] = ("simulation", "detection", "fuzzing"),
    simulator: str = "as_written",
    most: int = 10,
    endpoint: str | None = None,
    llm: str | None = None,
    price: tuple[float, float] | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    at_once: int = 8,
    cost_only: bool = False,
    text: Path | None = None,
    tokens: int | None = None,
) -> None:
    """Explain features of a dictionary or units of records in words, and score the words.

    Without --llm by token statistics, offline. Explanations are appended to explanations.jsonl in the folder of the
    records, as they are made; a run that was cut off goes on, and answers that were paid are not paid again.

    Args:
        target: A folder of records, or of a dictionary, whose records are made if they are not there.
        records: Which records, by the address of their site, if there are several.
        units: Their numbers; by default the n that tell the most.
        n: How many, if no units are named.
        least: Units that fire on fewer tokens are skipped.
        explainer: What a language model is shown: activations, marks or contrast.
        scores: Of simulation, detection and fuzzing; with a language model also intruder and surprisal.
        simulator: How a language model simulates: in_one_pass, as_written or one_by_one.
        most: The largest level in its prompts; 9 where its tokenizer takes digits apart.
        endpoint: Address of an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1; key: $OPENAI_API_KEY.
        llm: The model that the endpoint is asked for; without an endpoint, a model at hand, as models.load takes it.
        price: What a million tokens cost that are read, and that are written.
        requests_per_minute: The endpoint gets no more in any minute.
        tokens_per_minute: Likewise, read and written together.
        at_once: Requests that are under way at one time.
        cost_only: Tell what it takes, and end.
        text: A UTF-8 text file to make records from; by default the microworld's own text.
        tokens: Tokens of text to make records from, at most.
    """
    from interp_jax import explain as room
    from interp_jax.cli.recorded import recorded
    from interp_jax.io.endpoint import Endpoint
    from interp_jax.runs import check_counts

    check_counts(n=n, least=least, at_once=at_once)
    if endpoint is not None and llm is None:
        raise ValueError(f"--endpoint {endpoint}: give --llm too, the model that it is asked for")
    if llm is None:
        method = room.offline(scores)
    else:
        method = room.by_model(explainer, scores, simulator=simulator, most=most)
        method = method._replace(name=f"{explainer}, {Path(llm).name}")  # another model says another thing
    some = recorded(target, text, tokens)
    chosen = _chosen(some.found, records or some.site)
    numbers = units or _telling(chosen, some.strings, n, least)
    if not numbers:
        raise ValueError(f"{chosen.name}: no unit fires on {least} tokens; give a longer text, or a lower --least")
    for unit in numbers:
        chosen.check(unit)

    def evidence(unit: int) -> Any:
        return room.gather(chosen, unit, some.strings, least=least)

    chat: Any = None
    if llm is not None:
        _tell(_cost(method, evidence, numbers), price, len(numbers))
        if cost_only:
            return
        limits: Any = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        kept = some.folder / "answers"
        chat = Endpoint(llm, base_url=endpoint, cache=kept, at_once=at_once, **limits) if endpoint else _local(llm)
    try:
        found = room.explain_units(method, chosen.name, numbers, evidence, chat=chat, path=some.folder)
    except ConnectionError as error:
        raise ConnectionError(f"{error}; what was done is kept: run the same command again") from None
    print(_table(found))
    for unit, why in found.skipped.items():
        print(f"skipped: {unit}: {why}")
    if found.unusable:
        total = found.used + found.unusable
        print(f"nothing usable was said of {found.unusable:,} texts of {total:,}, which are left out")
    if isinstance(chat, Endpoint):
        used = chat.usage
        told = f", {used.cost(price):.4f} paid" if price else ""
        print(
            f"asked: {used.asked:,} requests, {used.cached:,} more were known; {used.failed:,} without an answer; ",
            end="",
        )
        print(f"{used.read:,} tokens read and {used.written:,} written{told}")
    print(f"written: {some.folder / 'explanations.jsonl'}")


def _chosen(found: "dict[str, Records]", name: str | None) -> "Records":
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise ValueError(f"--records {name}: there are {', '.join(found)}; name one")
    return found[name]


def _telling(records: "Records", strings: Sequence[str], n: int, least: int) -> tuple[int, ...]:
    """The units whose labels say the most, of those that fire often enough."""
    import numpy as np

    from interp_jax import explain as room

    rows = records.held_rows
    words = room.words(records.tokens[rows], records.mask[rows], strings)
    apart = np.zeros((records.n_units, 1), np.float32)  # no two rows are alike: labels alone tell units apart
    told = room.telling(records.held, words, apart, n=records.n_units)
    return tuple(unit for unit, _ in told if records.counts[unit] >= least)[:n]


def _cost(method: "Method", evidence: Callable[[int], Any], units: Sequence[int]) -> "Cost":
    from interp_jax import explain as room

    some: list[Any] = []
    for unit in units:
        try:
            some += [evidence(unit)] if len(some) < TRIED else []
        except room.TooFew:  # told when it is skipped
            continue
    return room.cost_of(method, some, len(units))


def _tell(cost: "Cost", price: tuple[float, float] | None, n: int) -> None:
    told = f", at most {(cost.read * price[0] + cost.written * price[1]) / 1e6:.4f} to pay" if price else ""
    print(f"{n} units: {cost}{told}", flush=True)


def _local(name: str) -> Any:
    from interp_jax import models
    from interp_jax.cli.subject import open_model

    return models.answering(*open_model(name))


def _table(found: "Explained") -> str:
    names = [name for name in SHOWN if any(name in one.scores for one in found.explanations)]
    rows = [("unit", *names, "explanation")]
    for one in found.explanations:
        numbers = [str(one.scores[name]) if name in one.scores else "-" for name in names]
        rows.append((str(one.unit), *numbers, " ".join(one.text.split())))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
