"""What the dashboard asks of a model that runs: where a unit fires in a text, and what is said when it is held."""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import dictionaries, models, report
from interp_jax.core import split_address
from interp_jax.explain import Records
from interp_jax.interventions import at, replace

LONGEST = 512  # tokens that are read
SHORTEST = 16  # that are compiled for; longer texts are padded to powers of two
N_TOKENS = 40  # that are said

Units = Mapping[str, Any]  # address -> a dictionary that reads there, or None for the site's own neurons


def check(address: str, model: Any, dictionary: Any) -> None:
    """Raises ValueError where a dictionary does not fit what stands at an address of a model. Runs nothing."""
    tokens = jax.ShapeDtypeStruct((1, SHORTEST), jnp.int32)
    real, unit = jax.ShapeDtypeStruct(tokens.shape, bool), jax.ShapeDtypeStruct((), jnp.int32)
    jax.eval_shape(partial(_values, address), model, dictionary, tokens, real, unit)


def live(
    model: Any, tokenizer: Any, records: Mapping[str, Records], units: Units, site_out: str | None = None
) -> report.Live:
    """The functions of a dashboard: `report.Live`.

    Args:
      model, tokenizer: from `models.load`.
      records: what is shown, for the maxima.
      units: what fires, by the name of its records.
      site_out: where the dictionary writes, where that is not what it reads.
    """
    sentences = _Sentences(model, tokenizer)

    def fire(source: str, unit: int, text: str) -> tuple[list[str], list[float]]:
        ids = sentences.read(text)
        width = min(model.config.n_ctx, max(SHORTEST, 1 << (len(ids) - 1).bit_length()))
        tokens, real = np.full((1, width), tokenizer.pad_id, np.int32), np.arange(width)[None] < len(ids)
        tokens[0, : len(ids)] = ids
        values = _values(source, model, units[source], jnp.asarray(tokens), jnp.asarray(real), jnp.int32(unit))
        shown = [i for i, token in enumerate(ids) if token not in sentences.special]
        strings = tokenizer.to_str_tokens([ids[i] for i in shown])
        return strings, [float(value) for value in np.asarray(values, np.float32)[shown]]

    def steer(source: str, unit: int, prompt: str, strength: float) -> tuple[str, str]:
        value = jnp.float32(strength * float(records[source].maxima[unit]))
        edits = _held(source, units[source], unit, value, records[source].shape, site_out)
        return sentences.before(prompt), sentences.said(prompt, edits)

    steers = frozenset(name for name, dictionary in units.items() if _can_be_held(model, dictionary))
    return report.Live(fire, steer, frozenset(units), steers)


class _Sentences:
    """A model that reads texts and goes on from them."""

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer
        self.special = {token for token in (tokenizer.bos_id, tokenizer.eos_id) if token is not None}
        self.before = lru_cache(maxsize=64)(partial(self.said, edits={}))

    def read(self, text: str) -> list[int]:
        """The tokens of a text, the bos token first, as in the corpus."""
        ids = self.tokenizer.encode(text, bos=self.tokenizer.bos_id is not None)
        most = min(LONGEST, self.model.config.n_ctx)
        if len(ids) > most:
            raise ValueError(f"the text has {len(ids)} tokens, at most {most} are read; shorten it")
        if not ids:
            raise ValueError("the text has no token; type some more")
        return ids

    def said(self, prompt: str, edits: Mapping[str, Any]) -> str:
        """How a prompt goes on, up to the end of the text."""
        ids = self.read(prompt)
        n_tokens = min(N_TOKENS, self.model.config.n_ctx - len(ids))
        if n_tokens < 1:
            raise ValueError(f"the text fills all {self.model.config.n_ctx} tokens of the model; shorten it")
        eos = self.tokenizer.eos_id
        out = models.generate(self.model, jnp.asarray([ids], jnp.int32), n_tokens, edits=edits, stop=eos)
        new = np.asarray(out)[0, len(ids) :].tolist()
        new = new[: new.index(eos)] if eos in new else new
        begun, whole = self.tokenizer.decode(ids), self.tokenizer.decode(ids + new)
        # Letters of several tokens are whole only in the text of all of them.
        return whole[len(begun) :] if whole.startswith(begun) else "".join(self.tokenizer.to_str_tokens(new))


@partial(jax.jit, static_argnums=0)
def _values(address: str, model: Any, dictionary: Any, tokens: Any, real: Any, unit: Any) -> Any:
    """What one unit does at each token of `[1 position]`, numbered as in `explain.Records`; `[position]`."""
    several = [one.strip() for one in address.split(",")]
    captured = ij.capture(models.forward, several, output=False)(model, tokens, attention_mask=real)
    values = [captured[one] for one in several]
    x = values[0] if len(several) == 1 else jnp.stack(values)
    if len(several) > 1 or _is_of_every_layer(several[0]):
        x = jnp.moveaxis(x, 0, 2)
    if dictionary is not None:
        x = dictionary.encode(x if x.ndim == 4 and dictionary.is_stacked else x.reshape(*x.shape[:2], -1))
    return x.reshape(x.shape[1], -1)[:, unit]


def _is_of_every_layer(address: str) -> bool:
    name, layer = split_address(address)
    return layer is None and name.startswith("blocks.")


def _can_be_held(model: Any, dictionary: Any) -> bool:
    speaks = isinstance(model, models.Decoder) and model.config.causal and not model.config.headless
    return speaks and (dictionary is None or not (dictionary.is_stacked or dictionary.reads_sequence))


def _held(
    address: str, dictionary: Any, unit: int, value: Any, shape: tuple[int, ...], site_out: str | None
) -> dict[str, Any]:
    """The edit that holds a unit at a value at every token."""
    if dictionary is not None:
        sites = None if site_out is None else (address, site_out)
        edit = at(replace(value), feature=jnp.int32(unit))
        return {site_out or address: dictionaries.splice(dictionary, edit=edit, sites=sites)}
    layer, index = divmod(unit, shape[-1])
    name, _ = split_address(address)
    where = name.replace("blocks.", f"blocks.{layer}.", 1) if _is_of_every_layer(address) else address
    return {where: at(replace(value), axis=-1, index=jnp.int32(index))}
