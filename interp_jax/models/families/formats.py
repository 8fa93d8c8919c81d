"""What a family is made of: the options of its config.json and the names of its weights, as tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from interp_jax.models.config import Config
from interp_jax.models.families.options import Options

SIZES = frozenset("n_layers n_heads n_kv_heads d_model d_head d_mlp d_vocab n_ctx n_types".split())


@dataclass(frozen=True)
class Rename:
    """One tensor of a checkpoint, `{}` the layer. Several of ours stand side by side on its output axis.

    Hugging Face's linear layers hold `[out in]` and are transposed, GPT-2's hold `[in out]`.

    Attributes:
      interleaved: ours take turns, head by head.
      vector: it has one axis: a bias, or what a norm multiplies by.
    """

    hf: str
    ours: tuple[str, ...]
    transpose: bool = False
    interleaved: bool = False
    vector: bool = False


@dataclass(frozen=True)
class Family:
    """A checkpoint format.

    Attributes:
      architecture: the class name that transformers writes in config.json.
      base: the name of the class without the head; its checkpoints have no prefix and no head.
      fields: option -> (our field, what it is where the option is absent or null).
      aliases: other names that transformers has for options.
      constant: the fields that are the same in every model of the family.
      fixed: options of which only some values are supported, the first of them where it is absent.
      unread: options of real configs that no forward pass of transformers' model of this family reads.
      read: (options, fields so far) -> the fields that take more than a look-up.
      write: `Config` -> the options that `read` reads.
      prefix: stands before every name but the head's, in all but the oldest checkpoints.
      names: the renaming table.
      head: the part of the table whose names have no prefix; a checkpoint of tied weights may lack or repeat it.
      ignored: ends of the names of tensors that are constants or not part of the model.
      spellings: ends of names in some checkpoints -> those of the table.
    """

    architecture: str
    base: str
    fields: Mapping[str, tuple[str, Any]]
    prefix: str
    names: tuple[Rename, ...]
    head: tuple[Rename, ...] = (Rename("lm_head.weight", ("w_u",), transpose=True),)
    aliases: Mapping[str, str] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    read: Callable[[Options, dict[str, Any]], dict[str, Any]] = lambda option, fields: {}
    write: Callable[[Config], dict[str, Any]] = lambda config: {}
    ignored: tuple[str, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=dict)

    def config(self, name: str, hf: Mapping[str, Any], where: str = "config.json", *, headless: bool = False) -> Config:
        """The `Config` that an HF config dict describes; `name` is the family's, `where` the file's, for errors.

        Options that nobody here has heard of are named in one warning. Raises ValueError at a value that is of the
        wrong kind or not supported.
        """
        option = self.options(name, hf, where)
        fields = {ours: self._field(option, key, ours, absent) for key, (ours, absent) in self.fields.items()}
        for key, values in self.fixed.items():
            option.only(key, *values)
        fields |= self.constant
        fields |= self.read(option, fields)
        if fields.get("local_layers") and not fields["causal"]:
            raise option.unsupported("is_causal=False beside a sliding window")
        option.done()
        try:
            return Config(family=name, headless=headless, **fields)
        except ValueError as error:  # sizes that are right each by itself and do not fit each other
            raise ValueError(f"{option}: {error}") from None

    def n_layers(self, name: str, hf: Mapping[str, Any], where: str = "config.json") -> int:
        """How many layers an HF config dict tells of."""
        key = next(key for key, (ours, _) in self.fields.items() if ours == "n_layers")
        return self.options(name, hf, where).size(key)

    def hf_config(self, config: Config) -> dict[str, Any]:
        """`Config` -> HF config dict."""
        options = {key: getattr(config, ours) for key, (ours, _) in self.fields.items()}
        architecture = self.base if config.headless else self.architecture
        return {"model_type": config.family, "architectures": [architecture], **options, **self.write(config)}

    def options(self, name: str, hf: Mapping[str, Any], where: str) -> Options:
        """The options of an HF config dict under their first names."""
        hf = dict(hf)
        for alias, key in self.aliases.items():
            value = hf.pop(alias, None)
            if value is not None and hf.setdefault(key, value) != value:
                raise ValueError(
                    f"{where}: {key}={hf[key]!r} and {alias}={value!r} are two names of one option; keep one"
                )
        return Options(f"{where} of family {name}", hf, self.unread)

    def _field(self, option: Options, key: str, ours: str, absent: Any) -> Any:
        if ours == "act":
            return option.act(key, absent)
        if ours in SIZES:
            return option.size(key, absent)
        return option(key, absent, get_type_hints(Config)[ours])


def linear(hf: str, *ours: str, transpose: bool = True, interleaved: bool = False) -> tuple[Rename, Rename]:
    """The weight and the bias of a linear layer; `ours` without the leading `w_`."""
    parts = [name.rpartition(".") for name in ours]
    w, b = (tuple(f"{at}{dot}{kind}_{name}" for at, dot, name in parts) for kind in "wb")
    return Rename(f"{hf}.weight", w, transpose, interleaved), Rename(
        f"{hf}.bias", b, interleaved=interleaved, vector=True
    )


def norm(hf: str, ours: str) -> tuple[Rename, Rename]:
    """The weight and the bias of a norm."""
    return Rename(f"{hf}.weight", (f"{ours}.w",), vector=True), Rename(f"{hf}.bias", (f"{ours}.b",), vector=True)
