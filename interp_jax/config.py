"""Settings of experiments and commands: a frozen dataclass that a TOML file fills and the command line overrides."""

from collections.abc import Sequence
import dataclasses
import difflib
from pathlib import Path
import sys
import tomllib
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def load(cls: type[Config], path: str | Path, args: Sequence[str] | None = None) -> Config:
    """Reads a TOML file into a dataclass, then lets the command line override every field.

    If `cls` has a field `model`, the file may have a table `[real]`, with settings for other models than the small one
    that the file names: they replace those of the file for every `--model` but that one and the microworlds. The
    command line overrides both.

    Args:
      cls: a frozen dataclass. A field that is a dataclass is a table of the TOML file and `--table.key` on the
        command line; a tuple is a TOML array.
      path: the TOML file. A relative path is looked up from the folder of the script that defines `cls` upwards,
        then from the current folder, so that `"configs/x.toml"` is found wherever the script is called from.
      args: the words of the command line, `sys.argv[1:]` if None. `()` takes the file as it stands.

    Returns:
      An instance of `cls`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not TOML, has a key that `cls` lacks (near names are given) or lacks one it needs.
      TypeError: a value is not of its field's type.
      SystemExit: the command line has an unknown flag or a value of the wrong type.

    Example:
      >>> import dataclasses, pathlib, tempfile
      >>> from interp_jax import config
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     n_steps: int
      ...     learning_rate: float = 1e-3
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder, "train.toml")
      ...     _ = file.write_text("n_steps = 100")
      ...     config.load(Train, file, args=["--learning-rate", "0.1"])
      Train(n_steps=100, learning_rate=0.1)
    """
    import tyro  # only scripts need it

    file = _find(cls, Path(path))
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from None
    sizes = table.pop("real", {}) if "model" in get_type_hints(cls) else {}
    if not isinstance(sizes, dict):
        raise TypeError(f"{path}: real = {sizes!r} is not a table")
    default, real = _build(cls, table, f"{path}: "), _build(cls, _over(table, sizes), f"{path}: real: ")
    given: Any = tyro.cli(cls, default=default, args=args)
    if not sizes or given.model == default.model or str(given.model).startswith("microworld"):
        return given
    return tyro.cli(cls, default=real, args=args)


def _over(table: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`table` with the values of `other` in place of its own, table by table."""
    inside = {key: _over(table[key], value) for key, value in other.items() if isinstance(value, dict) and key in table}
    return table | other | inside


def _find(cls: type, path: Path) -> Path:
    """The file, from the folder of the script that defines `cls` or one above it, or from the current folder."""
    script = getattr(sys.modules[cls.__module__], "__file__", None)
    folders = [*(Path(script).resolve().parents if script else ()), Path.cwd()]
    for folder in folders:
        if (folder / path).is_file():
            return folder / path
    raise FileNotFoundError(f"{path}: no such file in {folders[0]}, the folders above it, or {folders[-1]}")


def _build(cls: type, table: dict[str, Any], where: str) -> Any:
    """An instance of `cls` from a table of TOML; `where` says in errors which file and table it is."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    types = get_type_hints(cls)
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"{where}unknown key {key!r}; {hint}{cls.__name__} has {', '.join(fields)}")
    absent = [
        name
        for name, field in fields.items()
        if name not in table and field.default is field.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise ValueError(f"{where}missing {', '.join(absent)}, which {cls.__name__} needs")
    return cls(**{key: _value(types[key], value, where + key) for key, value in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value`, as TOML gives it, as an instance of the annotation `kind`."""
    origin, parameters = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build(kind, value, where + ".")
    if origin in (Union, UnionType):
        for option in parameters:
            try:
                return _value(option, value, where)
            except TypeError:
                continue
    elif origin is Literal and value in parameters:
        return value
    elif origin is tuple and isinstance(value, list):
        kinds = parameters[:1] * len(value) if parameters[1:] == (...,) else parameters
        if len(kinds) == len(value):
            return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif kind is float and type(value) is int:
        return float(value)
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif type(value) is kind:  # not isinstance: a bool is an int
        return value
    name = kind.__name__ if isinstance(kind, type) and not parameters else kind
    raise TypeError(f"{where} = {value!r} is not {name}")
