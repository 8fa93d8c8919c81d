"""Path patching: what one component tells another directly, everything between them held at the base run.

    direct:  the corrupted run with every head and MLP frozen, but sender s at its clean value; keeps the inputs of R
    effect = metric(the corrupted run with the inputs of the receivers R put in place)

Wang et al. 2022, "Interpretability in the wild" (IOI), arXiv:2211.00593, who let MLPs stand in a path
(`freeze_mlps=False`); Goldowsky-Dill et al. 2023, arXiv:2304.05969, whose paths are of edges alone. Norms are
computed anew.
Caveat: receivers that feed one another: `put="replace"` overwrites the later one's input, as Wang et al. do;
`put="add"` adds what the edge changes. The sums of single paths are not the effect of all: the model is not linear.
"""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any, NamedTuple

from jax import Array
import jax.numpy as jnp

from interp_jax.core import SiteInfo, capture, intervene, sites, split_address, transform
from interp_jax.interventions import add, at, chain, replace
from interp_jax.nodes import n_sharing
from interp_jax.patching.grid import confine, lay, ordered, visit
from interp_jax.runs import at_once, check_counts, check_pair, named, per_example

SENDERS = ("embed", "pos_embed", "blocks.attn.z", "blocks.attn.result", "blocks.attn_out", "blocks.mlp_out")
_NODE = re.compile(r"(?P<kind>q|k|v|head) (?P<layer>\d+)\.(?P<head>\d+)|mlp (?P<mlp>\d+)|(?P<logits>logits)")


class _Options(NamedTuple):
    where: str
    to: tuple[tuple[str, tuple[int, ...]], ...]  # address -> its heads, none for an MLP or the logits
    over: tuple[str, ...]
    put: str
    freeze_mlps: bool
    chunk: int | None


def path_patch(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    where: str,
    to: str | Sequence[str] = "logits",
    over: Sequence[str] = ("layer", "head"),
    *,
    put: str = "replace",
    freeze_mlps: bool = True,
    chunk: int | None = None,
) -> Callable[..., Array]:
    """What each sender does through its direct paths to the receivers, when they alone carry the clean run's value.

    The base is the corrupted run (denoising); swap the two runs for noising, as Wang et al. 2022 do. A sender that
    stands after the receivers leaves the metric of the corrupted run.

    Args:
      f, metric: as in `activation_patch`.
      where: address of the senders: `"blocks.attn.z"` (heads; also `"blocks.attn.result"`), `"blocks.attn_out"`,
        `"blocks.mlp_out"`, `"embed"` or `"pos_embed"`, or of one layer of these.
      to: the receivers, one or several, named as in `Edges`: "q 9.6" (what the query of head 6 of layer 9 reads), "k
        9.6", "v 9.6", "head 9.6" (all three), "mlp 5", "logits" (the final residual stream). Heads are counted as
        queries are: of grouped keys and values it is the one that head 6 uses.
      over: what to go over, and the axes of the result, as in `activation_patch`; `("layer",)` for MLPs.
      put: "replace" puts the receivers' inputs of the direct run in place; "add" adds what the sender changed in
        them, so that receivers may feed one another. The same for one receiver, or several of one layer.
      freeze_mlps: False recomputes the MLPs of the direct run, so that paths through them count.
      chunk: senders that run at once; by default so many that 64 sequences do.

    Returns:
      `g(model, clean, corrupted) -> effects`, one compiled call: tokens `[batch position]` (or `[position]`), both of
      one shape, to the float32 metric with the axes of `over`.

    Raises:
      ValueError: as `activation_patch`; a sender that does not write to the residual stream; receivers that are none,
        unknown, or not in the model; "logits" beside others without `put="add"`; an encoder, whose stream is normalized
        on its way.

    Example:
      >>> import jax
      >>> from functools import partial
      >>> from interp_jax import data, metrics, models, patching
      >>> model, tokenizer = models.load("microworld")
      >>> task = data.tasks.ioi(jax.random.key(0), tokenizer, n=2, order="ABBA", template=0)
      >>> f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
      >>> metric = metrics.logit_diff(task.answers, task.distractors)
      >>> effects = patching.path_patch(f, metric, "blocks.attn.z", "v 3.1")(model, task.clean, task.corrupted)
      >>> effects.shape
      (4, 4)
    """
    if put not in ("replace", "add"):
        raise ValueError(f"put={put!r} is neither 'replace' nor 'add'")
    check_counts(chunk=chunk)
    if split_address(where)[0] not in SENDERS:
        raise ValueError(f"path_patch: where={where!r} does not write to the stream; senders: {', '.join(SENDERS)}")
    receivers = _receivers((to,) if isinstance(to, str) else tuple(to))
    if put == "replace" and len(receivers) > 1 and "logits" in receivers:
        raise ValueError("path_patch: 'logits' overwrites what other receivers do: give it alone, or put='add'")
    axes = named(over)
    options = _Options(where, tuple(receivers.items()), axes, put, freeze_mlps, chunk)
    return transform(_path_patch, options, (f, metric))


def _receivers(names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Reads the names of nodes as addresses, each with its heads. The logits stand under "logits"."""
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        node = _NODE.fullmatch(name)
        if node is None:
            raise ValueError(f"path_patch: unknown receiver {name!r}: name 'q 1.3', 'head 1.3', 'mlp 2' or 'logits'")
        if node["logits"] or node["mlp"]:
            found["logits" if node["logits"] else f"blocks.{node['mlp']}.mlp_in"] = ()
            continue
        for kind in "qkv" if node["kind"] == "head" else node["kind"]:
            address = f"blocks.{node['layer']}.{kind}_input"
            found[address] = (*found.get(address, ()), int(node["head"]))
    if not found:
        raise ValueError("path_patch: no receiver: name 'q 1.3', 'mlp 2' or 'logits'")
    return found


def _path_patch(options: _Options, arrays: Any, *args: Any, **kwargs: Any) -> Array:
    (f, metric), (*before, clean, corrupted) = arrays, args
    check_pair("path_patch", clean, corrupted)
    known = sites(f, *before, clean, **kwargs)
    grid = lay(f, options.where, options.over, (*before, clean), kwargs)
    frozen = _frozen(known, options)
    inputs = {address: _heads(known, address, heads) for address, heads in options.to if address != "logits"}
    end = "logits" in dict(options.to)
    if end and inputs:
        inputs[f"blocks.{max(known['blocks.resid_post'].layers or (0,))}.resid_post"] = ()

    values = capture(f, options.where, output=False)(*before, clean, **kwargs)[options.where]
    base = capture(f, (*frozen, *inputs), output=False)(*before, corrupted, **kwargs)
    examples = jnp.shape(corrupted)[:-1]
    keep = "batch" in options.over

    def one(layer: Any, places: Sequence[Array]) -> Array:
        edits: dict[str, Any] = {name: replace(base[name]) for name in frozen}
        sent = confine(replace(values), grid, layer, places, 1)
        edits[options.where] = chain(edits[options.where], sent) if options.where in edits else sent
        direct = intervene(f, edits)
        if not inputs:
            output = direct(*before, corrupted, **kwargs)
        else:
            read = capture(direct, tuple(inputs), output=False)(*before, corrupted, **kwargs)
            put = {address: _put(read[address], base[address], heads, options) for address, heads in inputs.items()}
            output = intervene(f, put)(*before, corrupted, **kwargs)
        score = per_example(metric(output), examples)
        return score if keep else score.mean()

    return ordered(visit(one, grid, "data", at_once(options.chunk, examples)), grid, options.over)


def _frozen(known: Mapping[str, SiteInfo], options: _Options) -> list[str]:
    """The sites that the direct run holds: heads, or attention as a whole where the model does not name its heads."""
    if "blocks.normalized_resid_post" in known:
        raise ValueError("path_patch: this model normalizes its stream after each part: its paths are not direct")
    attention = "blocks.attn.z" if "blocks.attn.z" in known else "blocks.attn_out"
    names = (attention, *(("blocks.mlp_out",) if options.freeze_mlps else ()))
    return [name for name in names if name in known]


def _put(read: Array, base: Array, heads: tuple[int, ...], options: _Options) -> Any:
    """The edit that gives a receiver what it read in the direct run."""
    edit = replace(read) if options.put == "replace" else add(read - base)
    return chain(*(at(edit, head=head) for head in heads)) if heads else edit


def _heads(known: Mapping[str, SiteInfo], address: str, heads: tuple[int, ...]) -> tuple[int, ...]:
    """The heads of a site that belong to the given query heads, each named once."""
    site, _ = split_address(address)
    if site not in known or not heads:
        return heads  # what the function has not, its capture says
    n = n_sharing(known, site)
    if max(heads) >= n * known[site].size("head"):
        raise ValueError(f"path_patch: {address!r} has no head {max(heads)}; it has {n * known[site].size('head')}")
    return tuple(dict.fromkeys(head // n for head in heads))
