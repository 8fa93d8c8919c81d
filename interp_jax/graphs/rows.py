"""The rows of an attribution graph: a run of a prompt that is held, and the effects of all in it on each target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from interp_jax.core import SiteInfo, capture, intervene, sites, transform
from interp_jax.graphs.active import Active, encoded, find_active, tables
from interp_jax.graphs.effects import EMBED, END, Blocks, Rows, Sites, Sources, Targets, constants, effects
from interp_jax.graphs.placing import Placed, placed
from interp_jax.graphs.replacement import frozen_sites
from interp_jax.interventions import add

OUT = "unembed.out"  # the logits before a soft cap
FEW = 16  # ends in a batch at most


class Block(NamedTuple):
    """Some rows: effects of features, errors, embeddings and the constants, float32 CSR `[target source]`; and what was
    left out, `[target]`."""

    effects: sparse.csr_array
    rest: np.ndarray


@dataclass(frozen=True)
class Held:
    """The run of a prompt, with all that its rows are made of.

    Attributes:
      f, args: the function, and the model and tokens that it is called with.
      sites: names of the sites.
      layers: the numbers of the layers; places are those of MLPs and then, where there are any, of sparse heads.
      logits: `[d_vocab]`, after any soft cap, at one position.
      end: what the unembedding reads, `[position d_model]`.
      sources: what flows beside the features.
      constants: what is read, by encoders and by the unembedding, where nothing flows, by site.
      active: the active features; `blocks` and `slot` are their form in a program.
      looks: of sparse heads by place, where each group looks, `[group query key]`, and the group of each, `[head]`.
      encoders, decoders, biases: tables with a row for each feature, active or not.
    """

    f: Callable[..., Any]
    args: tuple[Any, ...]
    sites: Sites
    layers: tuple[int, ...]
    logits: np.ndarray
    end: Array
    sources: Sources
    constants: Mapping[str, Array]
    active: Active
    blocks: Blocks
    slot: np.ndarray
    looks: Mapping[int, tuple[np.ndarray, np.ndarray]]
    encoders: Array
    decoders: Array
    biases: Array

    @property
    def shape(self) -> tuple[int, int]:
        """How many places and positions there are."""
        n_places, n_positions, _ = self.sources.errors.shape
        return n_places, n_positions

    def where(self, place: Any) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the layers of places, and which of them are sparse heads', bool."""
        place = np.asarray(place)
        return np.asarray(self.layers)[place % len(self.layers)], place >= len(self.layers)


def held(
    f: Callable[..., Any], transcoders: Any, model: Any, tokens: Array, n_first: int, at: int = -1, lorsas: Any = None
) -> Held:
    """Runs the prompt, of whose logits those at a position are kept. Arguments and errors: `attribution_graph`."""
    if n_first < 0:
        raise ValueError(f"n_first={n_first}: give 0 or more")
    known = sites(f, model, tokens)
    found = placed(transcoders, known)
    heads = [] if lorsas is None else placed(lorsas, known)
    where, layers = _sites(found, heads, known), known[found[0].written].layers or ()
    # In bfloat16 what features write, and where heads look, would not be what is told of them.
    found, heads = (
        [one._replace(dictionary=one.dictionary.cast("float32")) for one in some] for some in (found, heads)
    )
    found = [*found, *heads]
    logits, acts = capture(f, list(dict.fromkeys((*where.read, *where.written, EMBED, END))))(model, tokens)
    acts = {name: value.astype(jnp.float32) for name, value in acts.items()}
    active = find_active(found, where.written, layers, acts, n_first)
    if not len(active):
        raise ValueError("attribution_graph: no feature is active on this prompt: are these the model's transcoders?")
    later = jnp.arange(len(tokens))[:, None] >= n_first
    features, around, skips = _reconstructed(found, where, layers, acts)
    flowing = jnp.where(later, jnp.concatenate([acts[name] for name in where.written]) - around, 0)
    errors = jnp.where(later, flowing - features, 0)
    sources = Sources(acts[EMBED], errors, flowing, skips)
    there = constants(f, where, (*where.read, END))(sources, model, tokens)
    blocks, slot = active.blocks(len(tokens), cross=where.cross)
    looks = {}
    for one in heads:
        layer = layers.index(one.layer)
        pattern = _pattern(one.dictionary, acts[one.read][layer])
        looks[len(layers) + layer] = np.asarray(pattern), np.asarray(one.dictionary.group)
    return Held(
        f,
        (model, tokens),
        where,
        layers,
        np.asarray(logits[at], np.float32),
        acts[END],
        sources,
        there,
        active,
        blocks,
        slot,
        looks,
        *tables(found),
    )


@jax.jit
def _pattern(lorsa: Any, x: Array) -> Array:
    return lorsa.pattern(x).astype(jnp.float32)


def one_prompt(tokens: Any) -> Array:
    """The tokens of one prompt, int `[position]`. Raises ValueError for others."""
    tokens = jnp.asarray(tokens)
    tokens = tokens[0] if tokens.ndim == 2 and len(tokens) == 1 else tokens
    if tokens.ndim != 1 or not jnp.issubdtype(tokens.dtype, jnp.integer) or not tokens.size:
        raise ValueError(f"graphs: tokens {list(tokens.shape)}: give one prompt, int [position]")
    return tokens


def with_constant(run: Held, address: str, value: Array) -> Held:
    """The run that knows what one more site has where nothing flows."""
    return replace(run, constants={**run.constants, address: value})


def _sites(found: Sequence[Placed], heads: Sequence[Placed], known: Mapping[str, SiteInfo]) -> Sites:
    first = found[0]
    for what, some in (("transcoders", found), ("lorsas", heads)):
        pairs = sorted({(one.read, one.written) for one in some})
        if len(pairs) > 1 or (some and some[0].layer is None and len(some) > 1):
            raise ValueError(f"attribution_graph: {what} of {pairs}: give those of one pair of sites, or one for all")
        for one in (one.dictionary for one in some):
            kind = type(one).__name__
            if not one.reads_pair:
                raise ValueError(
                    f"attribution_graph: a {kind} at {one.sites!r} is no transcoder: see graphs.node_effects"
                )
            if one.reads_sequence != (what == "lorsas"):
                raise ValueError(f"attribution_graph: a {kind} among {what}: heads are lorsas=, MLPs transcoders")
            if (odd := one.normalization) != "none":
                raise ValueError(
                    f"attribution_graph: a {kind} with normalization={odd!r} is not linear in what it reads"
                )
    if heads and first.layer is None:
        raise ValueError("attribution_graph: lorsas beside a cross-layer transcoder: give a transcoder for each layer")
    if missing := [name for name in (EMBED, END) if name not in known]:
        raise ValueError(f"attribution_graph: the model has no site {missing[0]!r}; name it")
    both = [first, *heads[:1]]
    read, written = tuple(one.read for one in both), tuple(one.written for one in both)
    return Sites(read, written, frozen_sites(known, heads=bool(heads)), first.layer is None)


def _reconstructed(
    found: Sequence[Placed], where: Sites, layers: Sequence[int], acts: Mapping[str, Array]
) -> tuple[Array, Array, Array | None]:
    """What features write, and what is written around them (biases and skips), `[place position d]`; the skips."""
    first = found[0].dictionary
    if found[0].layer is None:
        read = acts[where.read[0]]
        x = jnp.moveaxis(read, 0, -2)
        features = first.encode(x)
        around = jnp.broadcast_to(first.b_dec[:, None], (*read.shape[:2], first.b_dec.shape[-1]))
        return jnp.moveaxis(first.decode(features), -2, 0) - around, around, None
    n_places, d = len(where.written) * len(layers), first.W_dec.shape[-1]
    features, around = (jnp.zeros((n_places, len(acts[EMBED]), d), jnp.float32) for _ in range(2))
    skips = jnp.zeros((n_places, first.d_in, d), jnp.float32)
    for one in found:
        layer = layers.index(one.layer)
        place, x = where.written.index(one.written) * len(layers) + layer, acts[one.read][layer]
        around = around.at[place].set(one.dictionary.b_dec + one.dictionary.skip(x))
        features = features.at[place].set(encoded(one.dictionary, x) @ one.dictionary.W_dec)
        skips = skips.at[place].set(one.dictionary.skip(jnp.eye(x.shape[-1], dtype=x.dtype)))
    return features, around, skips if bool(jnp.any(skips)) else None


def of_features(run: Held, some: np.ndarray, size: int, *, mesh: Any, n_edges: int | None) -> Block:
    """The rows of active features, int `[target]`; `size` of them go back at once."""
    active, parts, order = run.active, [], []
    _, are_heads = run.where(active.place[some])
    for number, address in enumerate(run.sites.read):
        chosen = np.flatnonzero(are_heads == bool(number))
        if not len(chosen):
            continue
        here = some[chosen]
        table = active.row[here]
        look = _looks(run, here) if number else at_positions(run, active.position[here])
        given = active.place[here] % len(run.layers), look, run.encoders[table], run.biases[table]
        parts.append(rows_of(run, address, *given, size, mesh=mesh, n_edges=n_edges))
        order.append(chosen)
    back = np.argsort(np.concatenate(order))
    effects = sparse.csr_array(sparse.vstack([part.effects for part in parts], format="csr"))
    return Block(sparse.csr_array(effects[back]), np.concatenate([part.rest for part in parts])[back])


def at_positions(run: Held, position: Any) -> np.ndarray:
    """The weights of targets that are each at one position, int `[target]`: float32 `[target position]`."""
    weights = np.zeros((len(position), run.shape[1]), np.float32)
    weights[np.arange(len(position)), position] = 1
    return weights


def _looks(run: Held, some: np.ndarray) -> np.ndarray:
    """Where active sparse heads look, float32 `[target position]`."""
    active, found = run.active, []
    for place, position, index in zip(active.place[some], active.position[some], active.index[some], strict=True):
        pattern, group = run.looks[int(place)]
        found.append(pattern[group[index], position])
    return np.stack(found)


def of_ends(run: Held, at: int, vectors: Array, biases: Array, size: int, *, mesh: Any, n_edges: int | None) -> Block:
    """The rows of directions `[target d_model]` of what the unembedding reads at a position; as `of_features`."""
    look = at_positions(run, np.full(len(vectors), at))
    return rows_of(run, END, None, look, vectors, biases, min(size, FEW), mesh=mesh, n_edges=n_edges)


def directions(run: Held, at: int, combinations: np.ndarray) -> tuple[Array, Array]:
    """Combinations of logits, `[target d_vocab]`, as directions of what the unembedding reads, and their biases."""
    n = len(combinations)
    filled = np.pad(combinations, ((0, -n % FEW), (0, 0)))  # to few sizes: each is a program
    vectors, biases = transform(_directions, None, run.f)(jnp.asarray(filled), jnp.int32(at), *run.args)
    return vectors[:n], biases[:n]


def _directions(_: None, f: Any, combinations: Array, at: Array, *args: Any) -> tuple[Array, Array]:
    out = OUT if OUT in sites(f, *args) else "logits"
    base = capture(f, END, output=False)(*args)[END]

    def logits(change: Array) -> Array:
        return capture(intervene(f, {END: add(change)}), out, output=False)(*args)[out][at].astype(jnp.float32)

    value, back = jax.vjp(logits, jnp.zeros_like(base))
    found = jax.vmap(lambda one: back(one)[0][at])(combinations).astype(jnp.float32)
    return found, combinations @ value - found @ base[at].astype(jnp.float32)


def rows_of(
    run: Held,
    address: str,
    layer: Any,
    weights: np.ndarray,
    vector: Array,
    bias: Array,
    size: int,
    *,
    mesh: Any = None,
    n_edges: int | None = None,
) -> Block:
    """The rows of `vector . x + bias`, of what a site has: see `Targets`; `size` of them go back at once."""
    n, parts = len(weights), []
    size += 0 if mesh is None else -size % mesh.size  # each device gets as many
    for start in range(0, n, size):
        # All batches have one size, and the last is filled up with its first target: another size is another program.
        index = np.arange(start, start + size)
        index[index >= n] = start
        targets = Targets(
            None if layer is None else jnp.asarray(layer[index], jnp.int32),
            jnp.asarray(weights[index]),
            vector[index].astype(jnp.float32),
            bias[index].astype(jnp.float32),
        )
        given = (targets, run.constants[address], run.sources, run.blocks, run.decoders)
        found = effects(run.f, run.sites, address, mesh)(*given, *run.args)
        parts.append(_sparse(run, found, min(size, n - start), n_edges))
    rest = np.concatenate([part.rest for part in parts])
    return Block(sparse.csr_array(sparse.vstack([part.effects for part in parts], format="csr")), rest)


def _sparse(run: Held, found: Rows, n: int, n_edges: int | None) -> Block:
    """The first `n` rows, of all of them or of the largest edges alone."""
    each = [np.asarray(x).reshape(len(x), -1) for x in found]
    each[0] = each[0][:, run.slot]
    dense = np.concatenate(each, axis=1)[:n]
    rest = np.zeros(n, np.float32)
    if n_edges is not None and n_edges < dense.shape[1] - 1:
        small = np.argpartition(-np.abs(dense[:, :-1]), n_edges, axis=1)[:, n_edges:]
        rest = np.take_along_axis(dense, small, 1).sum(1)
        np.put_along_axis(dense, small, 0, 1)
    return Block(sparse.csr_array(dense), rest)
