"""The records that a command works on: those of a folder, or those of a dictionary, which are made if need be."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from interp_jax.explain import Records

HELD = 50_000  # tokens whose firings are all kept, as `interp-jax records` does


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
    from interp_jax.cli import output, records
    from interp_jax.cli.subject import open_model

    if not target.is_dir():
        raise FileNotFoundError(f"{target}: no such folder; give one of a dictionary or of records")
    folder = target if (target / "card.json").is_file() else target / records.FOLDER
    if (folder / "card.json").is_file():
        if text is not None or n_tokens is not None:
            raise ValueError(f"{folder}: has records; leave --text and --tokens away, or remove it to make them anew")
        name = explain.load_card(folder).get("model")
        if not isinstance(name, str):
            raise ValueError(f"{folder}: does not say its model; save_records(folder, records, model=...) does")
        found, tokenizer = explain.load_records(folder), open_model(name)[1]
    else:
        some, where = records.opened((target,), None, None)
        output.check_writable(folder)
        found, tokenizer = records.make(some, where, folder, text, n_tokens, HELD), some.tokenizer
    return Recorded(found, folder, tokenizer.to_str_tokens(range(tokenizer.d_vocab)))
