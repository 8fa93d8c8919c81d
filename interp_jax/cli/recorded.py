"""The records that a command works on: those of a folder, or those of a dictionary, which are made if need be."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from interp_jax.explain import Records

FOLDER = "records"  # in that of the dictionary


class Recorded(NamedTuple):
    """Records by the address of their site, the folder that they are in, and the text of every token."""

    found: "dict[str, Records]"
    folder: Path
    strings: list[str]


def recorded(target: Path, text: Path | None, n_tokens: int | None) -> Recorded:
    """The records of a folder of them, or of the folder of a dictionary; these are made where they are not there yet.

    Args:
      target: the folder.
      text: a UTF-8 text file to make them from; None: the microworld's own text.
      n_tokens: of it, at most; None: as many as the model reads in a minute or so.

    Raises:
      FileNotFoundError: there is neither in the folder.
      ValueError: records or a dictionary that do not say their model, or a text for records that there are.
    """
    from interp_jax import explain
    from interp_jax.cli.subject import open_model

    folder = target if (target / "card.json").is_file() else target / FOLDER
    if not (folder / "card.json").is_file():
        return _made(target, folder, text, n_tokens)
    if text is not None or n_tokens is not None:
        raise ValueError(f"{folder}: has records; leave --text and --tokens away, or remove it to make them anew")
    about = explain.load_card(folder)
    _, tokenizer = open_model(_said(about, "model", folder))
    return Recorded(explain.load_records(folder), folder, tokenizer.to_str_tokens(range(tokenizer.d_vocab)))


def _made(target: Path, folder: Path, text: Path | None, n_tokens: int | None) -> Recorded:
    from interp_jax import dictionaries, explain, models
    from interp_jax.cli import output, sizes, subject
    from interp_jax.data import corpus

    if not target.is_dir():
        raise FileNotFoundError(f"{target}: no such folder; give one of a dictionary or of records")
    dictionary, about = dictionaries.load(target), dictionaries.load_metadata(target)
    some = subject.load(_said(about, "model", target), _said(about, "site", target))
    output.check_writable(folder)
    planned = sizes.plan(sizes.Sizes(tokens=n_tokens), some.model, some.d_in)
    read = corpus.read(some.tokenizer, text, n_tokens=planned.tokens, n_positions=planned.positions)
    source = "the microworld's text" if text is None else str(text)
    print(f"no records in {folder}: reading {read.mask.sum():,} tokens of {source} (--tokens, --text)", flush=True)
    effects = lambda rows: subject.logit_effects(some, rows)  # noqa: E731
    record = explain.record(models.forward, {some.site: dictionary}, effects=effects, folder=folder, shown=True)
    found = record(some.model, read.tokens, mask=read.real, skip=read.special)
    explain.save_records(folder, found, model=some.name, text=source)
    return Recorded(found, folder, some.tokenizer.to_str_tokens(range(some.tokenizer.d_vocab)))


def _said(about: dict[str, Any], what: str, folder: Path) -> str:
    found = about.get(what)
    if not isinstance(found, str):
        raise ValueError(f"{folder}: does not say its {what}; make it with interp-jax, or by explain.save_records")
    return found
