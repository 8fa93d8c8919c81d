"""`interp-jax records DICT`: one pass over a text that records where every feature and neuron fires."""

from collections.abc import Sequence
from pathlib import Path
import re
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

if TYPE_CHECKING:
    from interp_jax.cli.subject import Subject
    from interp_jax.explain import Records

FOLDER = "records"  # in that of the dictionary
HELD = 50_000  # tokens of which all firings are kept


def records(
    dictionary: Annotated[tuple[Path, ...], tyro.conf.Positional],
    model: str | None = None,
    site: str | None = None,
    text: Path | None = None,
    tokens: int | None = None,
    neurons: tuple[str, ...] = (),
    held: int = HELD,
    out: Path | None = None,
) -> None:
    """Record where the features of dictionaries fire in a text, and what goes with that, in one pass.

    Of every feature there are its strongest examples and some of all of its range, how often it fires and how strongly,
    on which tokens, the tokens that it makes likelier, and the features and neurons that fire like it. A pass that was
    cut off goes on from where it last saved, once a minute.

    Args:
        dictionary: Folders of dictionaries of one model, such as quickstart/dictionary.
        model: Their model; by default the one that the first folder names.
        site: Where they read, by default as each folder says; for one dictionary alone.
        text: A UTF-8 text file; by default what the first was trained on, or the microworld's own text.
        tokens: Tokens of text, at most; by default as many as the model reads in a minute or so.
        neurons: Sites whose own neurons are recorded too, such as blocks.2.mlp.post.
        held: Tokens, in rows by chance, of which all firings are kept: for random texts and correlations.
        out: Folder for the records; by default "records" in that of the first dictionary.
    """
    from rich.console import Console
    from rich.table import Table

    from interp_jax.cli import output

    folders = list(dictionary)
    if not folders:
        raise ValueError("records: no dictionary; give its folder, such as quickstart/dictionary")
    if site is not None and len(folders) > 1:
        raise ValueError("records: --site is of one dictionary, and there are several; let their folders say it")
    some, where, trained_on = opened(folders, model, site)
    out = out or folders[0] / FOLDER
    output.check_writable(out)
    found = make(some, where | dict.fromkeys(neurons), out, text or trained_on, tokens, held)
    table = Table("site", "units", "fire on", "never", "strongest", box=None, pad_edge=False)
    for name, one in found.items():
        alive = one.densities[one.counts > 0]
        often = f"{alive.mean():.2%} of tokens" if len(alive) else ""
        never = f"{(one.counts == 0).mean():.1%}"
        table.add_row(name, f"{one.n_units:,}", often, never, f"{one.maxima.max():.2f}")
    Console(highlight=False, soft_wrap=True).print(table)
    print(f"\nthe records: {out}")


class Opened(NamedTuple):
    """Dictionaries of one model.

    Attributes:
      some: the model, and the site of the first dictionary.
      where: each dictionary by the address that it reads.
      text: what the first was trained on, where that is a file that is still there; else None.
    """

    some: "Subject"
    where: dict[str, Any]
    text: Path | None


def opened(folders: Sequence[Path], model: str | None, site: str | None) -> Opened:
    """The model of dictionaries, and the dictionaries.

    Raises:
      ValueError: a folder does not say its model or site, or two dictionaries read at one address.
    """
    from interp_jax import dictionaries
    from interp_jax.cli.subject import Subject, open_model

    abouts = [dictionaries.load_metadata(folder) for folder in folders]
    named, text = model or said(abouts[0], "model", folders[0]), abouts[0].get("text")
    where: dict[str, Any] = {}
    for folder, about in zip(folders, abouts, strict=True):
        dictionary = dictionaries.load(folder)
        address = site or read_at(dictionary, about, folder)
        if address in where:
            raise ValueError(f"{folder}: reads {address}, as another dictionary does; record them one after the other")
        where[address] = dictionary
    loaded, tokenizer = open_model(named)
    address, dictionary = next(iter(where.items()))
    known = Path(text) if isinstance(text, str) and Path(text).is_file() else None
    return Opened(Subject(named, loaded, tokenizer, {}, address, dictionary.d_in), where, known)


def read_at(dictionary: Any, about: dict[str, Any], folder: Path) -> str:
    """The address that a dictionary reads: of a transcoder the first, of a crosscoder of named sites all of them."""
    sites = dictionary.sites
    if sites is None:
        return said(about, "site", folder)
    if isinstance(sites, str):
        return sites
    return sites[0] if dictionary.reads_pair else ", ".join(sites)


def said(about: dict[str, Any], what: str, folder: Path) -> str:
    """What a dictionary's folder says of itself.

    Raises:
      ValueError: it does not.
    """
    found = about.get(what)
    if not isinstance(found, str):
        raise ValueError(f"{folder}: does not say its {what}; give --{what}")
    return found


def make(
    some: "Subject", where: dict[str, Any], out: Path, text: Path | None, tokens: int | None, held: int
) -> dict[str, "Records"]:
    """Reads the text and records it, into a folder."""
    from interp_jax import explain, models
    from interp_jax.cli import sizes, subject
    from interp_jax.data import corpus

    planned = sizes.plan(sizes.Sizes(tokens=tokens), some.model, some.d_in)
    read = corpus.read(some.tokenizer, text, n_tokens=planned.tokens, n_positions=planned.positions)
    source = "the microworld's text" if text is None else str(text)
    print(f"recording {', '.join(where)} on {read.mask.sum():,} tokens of {source}", flush=True)
    record = explain.record(
        models.forward,
        where,
        rows=_neuron_rows(some.model, where),
        effects=lambda rows: subject.logit_effects(some, rows),
        folder=out,
        n_held=held,
        shown=True,
    )
    found = record(some.model, read.tokens, mask=read.real, skip=read.special)
    explain.save_records(out, found, model=some.name, text=source)
    return found


def _neuron_rows(model: Any, where: dict[str, Any]) -> dict[str, Any]:
    """What the neurons of MLPs write, by the address of those that are recorded."""
    from interp_jax import models

    weights, found = models.weights(model), {}
    for address in (address for address, dictionary in where.items() if dictionary is None):
        parts = address.split(".")
        if parts[0] == "blocks" and parts[-2:] == ["mlp", "post"] and "W_out" in weights:
            rows = weights["W_out"] if len(parts) == 3 else weights["W_out"][int(parts[1])]
            found[address] = rows.reshape(-1, rows.shape[-1])
    return found


def kept(source: Opened, folder: Path, text: Path | None, tokens: int | None) -> dict[str, "Records"]:
    """The records in a folder; where there are none, they are made first, with the MLP's neurons of the same layer.

    Raises:
      ValueError: there are some, and others are asked for, or they are of another site.
    """
    from interp_jax import explain

    some, where, trained_on = source
    if (folder / "card.json").is_file():
        if text is not None or tokens is not None:
            raise ValueError(f"{folder}: has records; leave --text and --tokens away, or remove it to make them anew")
        found = explain.load_records(folder)
        if missing := [address for address in where if address not in found]:
            raise ValueError(f"{folder}: has records of {', '.join(found)}, and the dictionary reads {missing[0]}")
        return found
    layer = re.match(r"blocks\.(\d+)\.", some.site)
    neurons = [f"blocks.{layer[1]}.mlp.post"] if layer else []
    return make(some, where | dict.fromkeys(neurons), folder, text or trained_on, tokens, HELD)
