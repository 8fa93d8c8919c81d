"""`interp-jax dashboard DICT`: pages of a dictionary's features, of the model's heads, served on the loopback."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from interp_jax.cli.subject import Subject
    from interp_jax.explain import Records
    from interp_jax.report import Board, HeadList

PORT = 8765
HEADS = "heads.json"


def dashboard(
    dictionary: Annotated[Path, tyro.conf.Positional],
    model: str | None = None,
    site: str | None = None,
    records: Path | None = None,
    text: Path | None = None,
    tokens: int | None = None,
    heads: bool = True,
    port: int = PORT,
    static: Path | None = None,
) -> None:
    """Show what the features of a dictionary fire on and write, try texts on them, and steer by them.

    The pages are served to this machine alone, until interrupted. Where there are no records of the features, they are
    made first, and kept.

    Args:
        dictionary: A folder of a dictionary, such as quickstart/dictionary.
        model: Its model; by default the one that the folder names.
        site: Where it reads; by default as the folder says.
        records: Folder of records; by default the folder "records" in that of the dictionary.
        text: A UTF-8 text file to make records from; by default what it was trained on, or the microworld's own text.
        tokens: Tokens of text to make records from, at most; by default as many as the model reads in a minute or so.
        heads: Show the model's heads of attention too.
        port: Where to listen; 0 is any free port.
        static: Write the pages as files to this folder instead, for a browser without a server.
    """
    from interp_jax import report
    from interp_jax.cli import output

    if static is not None:
        output.check_writable(static)
        board = _board(dictionary, model, site, records, text, tokens, heads)
        size = report.write_static(board, static)
        print(f"the pages: {static / 'index.html'} ({size / 1e6:.1f} MB of data)")
        return
    with report.listening(port) as at:  # before minutes of work
        board = _board(dictionary, model, site, records, text, tokens, heads)
        print(f"the dashboard: http://127.0.0.1:{at.getsockname()[1]}/ (interrupt to end)", flush=True)
        report.serve(board, at)


def _board(
    folder: Path,
    model: str | None,
    site: str | None,
    given: Path | None,
    text: Path | None,
    tokens: int | None,
    heads: bool,
) -> "Board":
    """Everything that is shown."""
    from interp_jax import dictionaries, explain, report
    from interp_jax.cli import live
    from interp_jax.cli.records import FOLDER, kept, opened

    about = dictionaries.load_metadata(folder)
    some, only, _ = source = opened([folder], model, site)
    ((address, dictionary),) = only.items()
    try:
        live.check(address, some.model, dictionary)
    except ValueError as error:
        raise ValueError(f"{folder}, at {address} of {some.name}: {error}; give its own --model and --site") from None
    strings = some.tokenizer.to_str_tokens(range(some.tokenizer.d_vocab))
    where = given or folder / FOLDER
    if given is not None:
        explain.load_card(given)  # a folder that was named is not filled
    found = kept(source, where, text, tokens)
    for name, one in found.items():
        ours = name != address or (one.kind, one.shape) == (type(dictionary).__name__, dictionary.feature_shape)
        if not ours or one.tokens.max() >= len(strings):
            raise ValueError(f"{where}: {name} was recorded of another dictionary or model; give another --records")
    # Of what else was recorded there is no dictionary here, but neurons need none.
    units = {name: None for name, one in found.items() if one.kind == "neurons"} | {address: dictionary}
    written = dictionary.sites[1] if dictionary.reads_pair and dictionary.sites else about.get("site_out")
    return report.Board(
        title=Path(some.name).name,
        records=found,
        strings=strings,
        facts={address: _facts(dictionary, about)},
        explanations=tuple(explain.load_explanations(where).values()),
        heads=_heads(some, found, where / HEADS, strings) if heads else None,
        live=live.live(some.model, some.tokenizer, found, units, written),
        remedy=f"interp-jax dashboard {folder}",
    )


def _facts(dictionary: Any, about: dict[str, Any]) -> dict[str, str]:
    """What is known of the dictionary, its scores included."""
    facts = {"kind": type(dictionary).__name__, "features": " × ".join(f"{n:,}" for n in dictionary.feature_shape)}
    scores = about.get("scores") or {}
    if "l0" in scores:
        facts["active for a token"] = f"{scores['l0']:.1f}"
    if "fvu" in scores:
        facts["variance explained"] = f"{1 - scores['fvu']:.1%}"
    if "ce_recovered" in scores:
        facts["cross-entropy recovered"] = f"{scores['ce_recovered']:.1%}"
    return facts


def _heads(some: "Subject", found: dict[str, "Records"], path: Path, strings: list[str]) -> "HeadList | None":
    """The heads over the text of the records, kept beside them."""
    import numpy as np

    from interp_jax import models, report
    from interp_jax.cli import head_survey

    if not isinstance(some.model, models.Decoder) or some.model.config.headless:
        return None
    if path.is_file():
        return report.HeadList.load(path)
    one = next(iter(found.values()))
    last = one.mask.shape[1] - one.mask[:, ::-1].argmax(1)  # special tokens do not count, and are read
    real = (np.arange(one.mask.shape[1]) < last[:, None]) & one.mask.any(1, keepdims=True)
    special = [token for token in (some.tokenizer.bos_id, some.tokenizer.eos_id) if token is not None]
    heads = head_survey.survey(some.model, one.tokens, real, strings, special)
    heads.save(path)
    return heads
