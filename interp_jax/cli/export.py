"""`interp-jax export DICT --to neuronpedia`: a dictionary's records in the form of another tool."""

from pathlib import Path
import re
from typing import Annotated, Any, Literal

import tyro


def export(
    dictionary: Annotated[Path, tyro.conf.Positional],
    to: Literal["neuronpedia", "delphi"],
    out: Path | None = None,
    records: Path | None = None,
    model: str | None = None,
    site: str | None = None,
    text: Path | None = None,
    tokens: int | None = None,
    model_id: str | None = None,
    source_set: str | None = None,
    release: str | None = None,
    title: str | None = None,
    creator: str = "interp_jax",
    url: tuple[str, ...] = (),
) -> None:
    """Write what is known of a dictionary's features as the folder that Neuronpedia imports, or as delphi's cache.

    Where there are no records of the features, they are made first, and kept.

    Args:
        dictionary: A folder of a dictionary, such as quickstart/dictionary.
        to: neuronpedia: the import folder, one source of one source set; delphi: a cache of activations.
        out: Folder for the export, which must be empty; by default "neuronpedia" or "delphi" in that of the dictionary.
        records: Folder of records; by default "records" in that of the dictionary.
        model: Its model; by default the one that the folder names.
        site: Where it reads; by default as the folder says.
        text: A UTF-8 text file to make records from; by default what it was trained on, or the microworld's own text.
        tokens: Tokens of text to make records from, at most.
        model_id: The model's id at Neuronpedia; by default its name.
        source_set: The id of all dictionaries of this kind; by default after site and width, such as res-2k.
        release: The release's id; by default the source set's.
        title: What the release is called.
        creator: Who made it.
        url: Addresses of a paper or of the weights.
    """
    from interp_jax import explain
    from interp_jax.cli import output, subject
    from interp_jax.cli.records import FOLDER, kept, opened

    out, folder = out or dictionary / to, records or dictionary / FOLDER
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"--out {out}: is not empty; remove it, or choose another folder")
    some, where, _ = source = opened([dictionary], model, site)
    output.check_writable(out)
    ((address, found),) = where.items()
    every = kept(source, folder, text, tokens)
    of_features = every[address]
    if to == "delphi":
        explain.to_delphi(of_features, out, model_name=some.name)
        rows = of_features.held_rows
        print(f"{len(rows):,} rows of text, {len(of_features.held.values):,} firings: {out / address}")
        return
    strings = some.tokenizer.to_str_tokens(range(some.tokenizer.d_vocab))
    neurons = next((one for one in every.values() if one.kind == "neurons"), None)
    named = _named(some, found, address, model_id, source_set, release, title, creator, url)
    n = explain.to_neuronpedia(
        out,
        of_features,
        found,
        strings,
        named,
        effects=lambda rows: subject.logit_effects(some, rows),
        explanations=tuple(explain.load_explanations(folder).values()),
        neurons=neurons,
    )
    print(f"{n:,} features of {named.model}/{named.source}, release {named.name}: {out}")


def _named(
    some: Any,
    dictionary: Any,
    address: str,
    model_id: str | None,
    source_set: str | None,
    release: str | None,
    title: str | None,
    creator: str,
    url: tuple[str, ...],
) -> Any:
    """How the dictionary is called at Neuronpedia."""
    from interp_jax import explain, models

    layer, _, place = address.removeprefix("blocks.").partition(".")
    short = {"resid_pre": "res", "resid_mid": "res", "resid_post": "res", "mlp_out": "mlp", "attn_out": "att"}
    width = f"{dictionary.d_sae // 1024}k" if dictionary.d_sae >= 1024 else str(dictionary.d_sae)
    source_set = source_set or f"{short.get(place, re.sub('[^a-z0-9]+', '-', place or address))}-{width}"
    weights = models.weights(some.model)
    name = model_id or re.sub("[^a-zA-Z0-9_-]+", "-", Path(some.name).stem).lower()
    spelled = re.sub(r"([a-z_]+)$", r"hook_\1", address)
    return explain.Release(
        model=name,
        layer=int(layer) if layer.isdigit() else 0,
        source_set=source_set,
        name=release or source_set,
        title=title or f"{type(dictionary).__name__} of {address}, {dictionary.d_sae:,} features",
        creator=creator,
        hook=spelled,
        n_layers=some.model.config.n_layers,
        d_mlp=weights["W_in"].shape[-1] if "W_in" in weights else 0,
        urls=url,
    )
