"""The records that a command works on: those of a folder, or those of a dictionary, which are made if need be."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from interp_jax.explain import Records


class Recorded(NamedTuple):
    """Records of a folder.

    Attributes:
      found: by the address of their site.
      folder: where they are.
      strings: the text of every token.
      site: of the dictionary that was named; None where records were.
    """

    found: "dict[str, Records]"
    folder: Path
    strings: list[str]
    site: str | None


def recorded(target: Path, text: Path | None, n_tokens: int | None) -> Recorded:
    """The records of a folder of them, or of the folder of a dictionary; these are made where they are not there yet.

    Args:
      target: the folder.
      text: a UTF-8 text file to make them from; None: as `interp-jax dashboard` does.
      n_tokens: of it, at most; None: as many as the model reads in a minute or so.

    Raises:
      FileNotFoundError: there is neither in the folder.
      ValueError: records or a dictionary that do not say their model, or a text for records that there are.
    """
    from interp_jax import explain
    from interp_jax.cli.records import FOLDER, kept, opened
    from interp_jax.cli.subject import open_model

    if not target.is_dir():
        raise FileNotFoundError(f"{target}: no such folder; give one of a dictionary or of records")
    if not (target / "card.json").is_file():
        source = opened([target], None, None)
        found = kept(source, target / FOLDER, text, n_tokens)
        return Recorded(found, target / FOLDER, _strings(source.some.tokenizer), source.some.site)
    if text is not None or n_tokens is not None:
        raise ValueError(f"{target}: has records; leave --text and --tokens away, or remove it to make them anew")
    name = explain.load_card(target).get("model")
    if not isinstance(name, str):
        raise ValueError(f"{target}: does not say its model; save_records(folder, records, model=...) does")
    return Recorded(explain.load_records(target), target, _strings(open_model(name)[1]), None)


def _strings(tokenizer: Any) -> list[str]:
    return tokenizer.to_str_tokens(range(tokenizer.d_vocab))
