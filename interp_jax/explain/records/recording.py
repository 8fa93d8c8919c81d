"""One pass over a corpus that records every unit of several sites at once: features of dictionaries, and neurons.

What is kept is as large for a long corpus as for a short one, and does not depend on how the corpus is cut into batches
(of rare tokens see `tallies`). A pass that was cut off goes on where it last saved.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
import math
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.core import transform
from interp_jax.explain.records import relations, units
from interp_jax.explain.records.held import Held
from interp_jax.explain.records.records import Records
from interp_jax.explain.records.tallies import Part, Tally
from interp_jax.explain.records.unfinished import Unfinished
from interp_jax.masking import attending, counted, sequences, skipped
from interp_jax.progress import Progress
from interp_jax.runs import check_counts

FIRINGS = 4_000_000  # that wait before they are sorted: sorting few at a time would be slow
CONTEXT = 5  # tokens, up to the one that fires, that no two of the strongest examples share
SAVE_EVERY = 60.0  # seconds

Effects = Callable[[Any], Any]


@dataclass(frozen=True)
class Kept:
    """How much is kept: of a unit, `n_held` of all."""

    window: int
    n_top: int
    n_sampled: int
    n_held: int
    seed: int


@dataclass
class Site:
    """What has been gathered at one site, and the firings that wait to be."""

    tally: Tally
    held: Held
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def n_waiting(self) -> int:
        return sum(len(values) for _, _, values in self.waiting)

    def gather(self, tokens: np.ndarray, contexts: np.ndarray, kept: Kept) -> None:
        """Adds what waits to what is known."""
        if not self.waiting:
            return
        found, places, values = (np.concatenate(column) for column in zip(*self.waiting, strict=True))
        self.waiting.clear()
        order = np.argsort(found, kind="stable")
        found, places, values = found[order], places[order], values[order]
        part = Part(found, places, values, tokens.reshape(-1)[places], contexts[places], tokens.shape[1])
        self.tally = self.tally.add(part, n_top=kept.n_top, n_sampled=kept.n_sampled, seed=kept.seed)
        self.held = self.held.add(part)


def record(
    f: Callable[..., Any],
    where: Mapping[str, Any],
    *,
    rows: Mapping[str, Any] | None = None,
    effects: Effects | None = None,
    folder: str | Path | None = None,
    window: int = 64,
    n_top: int = 32,
    n_sampled: int = 4,
    n_held: int = 50_000,
    batch_size: int = 16,
    seed: int = 0,
    shown: bool = False,
) -> Callable[..., dict[str, Records]]:
    """Records where the units of sites fire in a corpus, and what that tells of them.

    Args:
      f: `(model, tokens [batch position])`, with sites; where there is padding, it is also given the mask as the
        keyword `attention_mask`, if it takes one, as `models.forward` does.
      where: address -> a dictionary of any kind that reads there, or None for the site's own neurons. An address of
        every layer has the neurons of all of them, or is that of a cross-layer transcoder; several addresses joined by
        a comma are those of a crosscoder. A transcoder's is the one that it reads. Axes of heads are flattened.
      rows: address -> what one unit of each neuron there writes, `[unit d]`, such as the rows of `W_out` of
        "blocks.2.mlp.post". A dictionary's own are those of its decoder.
      effects: such rows `[n d]` -> what each adds to the logits `[n d_vocab]`, as `lambda rows: rows @ W_U`, or None
        where there is no such path. Without it logits are left out.
      folder: where a pass saves what it has once a minute, and goes on from; None saves nothing.
      window: tokens of an example, at most.
      n_top: strongest examples of a unit.
      n_sampled: examples by chance of each quarter of an octave below the maximum; eight times as many of all.
      n_held: tokens, in rows by chance, whose firings are all kept, for windows by chance and for correlations.
      batch_size: sequences that run at once.
      seed: of what is drawn by chance.
      shown: whether progress is shown.

    Returns:
      `g(model, tokens, *, mask=None, skip=()) -> {address: Records}`, with int tokens `[sequence position]`, bool mask
      `[sequence position]`, False at padding, and the ids of special tokens, which do not count, as in `evaluate`.

    Raises:
      ValueError: no site, a number below 1, no token that counts, a site that is not one vector for each token or is
        not as wide as its dictionary, an address that names no site (near names follow), padding before a token where
        `f` takes no mask or a dictionary reads sequences; a folder with a pass over something else.
      FloatingPointError: an activation is not finite.

    Example:
      >>> import jax
      >>> from interp_jax import explain, models
      >>> model, _ = models.load("microworld")
      >>> tokens = jax.random.randint(jax.random.key(0), (8, 12), 3, 641)
      >>> found = explain.record(models.forward, {"blocks.2.mlp.post": None})(model, tokens)
      >>> found["blocks.2.mlp.post"].counts.shape, found["blocks.2.mlp.post"].n_tokens
      ((256,), 96)
    """
    check_counts(window=window, n_top=n_top, n_sampled=n_sampled, n_held=n_held, batch_size=batch_size)
    if not where:
        raise ValueError(
            'record: no site; give such as where={"blocks.2.resid_post": dictionary}, None for its neurons'
        )
    names, dictionaries = tuple(where), tuple(where.values())
    run = transform(units.activations, names, (f, dictionaries))

    def g(model: Any, tokens: Any, *, mask: Any = None, skip: Any = ()) -> dict[str, Records]:
        tokens, real, counts = _corpus(tokens, mask, skip, dictionaries)
        options = attending("record", f, real)
        kept = Kept(min(window, tokens.shape[1]), n_top, n_sampled, n_held, seed)
        size = min(batch_size, len(tokens))
        struct = jax.ShapeDtypeStruct((size, tokens.shape[1]), jnp.int32)
        shapes = [x.shape[:-1] for x in jax.eval_shape(run, model, struct, options(real[:size]), counts[:size])]

        writing = [relations.Writing.of(d, (rows or {}).get(name)) for name, d in where.items()]
        _check_rows(rows or {}, where, dict(zip(names, shapes, strict=True)))
        begun = Unfinished(folder, (names, kept), (model, dictionaries, tokens, counts))
        nothing = [(Tally.none(math.prod(shape), kept.window), Held.none(counts, n_held, seed)) for shape in shapes]
        at, parts = begun.load(nothing)
        sites, contexts = [Site(*part) for part in parts], _contexts(tokens)
        saved = time.monotonic()
        for start, batch, here in _batches(counts, size, at, tokens.shape[1], shown):
            found = run(model, jnp.asarray(tokens[batch]), options(real[batch]), jnp.asarray(here))
            late = time.monotonic() - saved > SAVE_EVERY and folder is not None
            for site, values in zip(sites, found, strict=True):
                site.waiting.append(units.firing(values, start * tokens.shape[1]))
                if late or site.n_waiting >= FIRINGS:
                    site.gather(tokens, contexts, kept)
            if late:
                begun.save(start + size, [(site.tally, site.held) for site in sites])
                saved = time.monotonic()
        for site in sites:
            site.gather(tokens, contexts, kept)
        records = _records(dict(zip(names, shapes, strict=True)), sites, writing, tokens, counts, effects)
        begun.remove()
        return records

    return g


def _corpus(tokens: Any, mask: Any, skip: Any, dictionaries: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """Tokens, what the model attends to and what counts, `[sequence position]` each."""
    whole: Any = sequences("record", tokens, mask)
    if whole is None:
        raise ValueError("record: tokens are one array, integers [sequence position]")
    tokens, real = whole
    counts = counted(tokens, real, skipped("record", skip))
    if not counts.any():
        raise ValueError(f"record: of tokens {list(tokens.shape)} none counts; give a text that is not empty")
    if any(d is not None and d.reads_sequence for d in dictionaries) and (real[:, 1:] & ~real[:, :-1]).any():
        raise ValueError("record: padding before tokens, which heads would look at; pad on the right")
    return tokens.astype(np.int32), real, counts


def _check_rows(rows: Mapping[str, Any], where: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, some in rows.items():
        if name not in where or where[name] is not None:
            raise ValueError(f"record: rows of {name!r}, where no neurons are recorded; give them for a site of None")
        n, shape = math.prod(shapes[name]), list(np.shape(some))
        if len(shape) != 2 or shape[0] != n:
            raise ValueError(f"record: rows {shape} for the {n} neurons of {name!r}; give one row for each")


def _batches(
    counts: np.ndarray, size: int, at: int, n_positions: int, shown: bool
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The first row of each batch from `at` on, its rows, and what counts in them.

    The last batch is filled up with a row that does not count again: one shape, one compilation.
    """
    n = len(counts)
    with Progress("recording", -(-n // size), shown=shown) as progress:
        progress.update(at // size)
        for start in range(at, n, size):
            progress.update(start // size, f"{start * n_positions:,} tokens")
            rows = np.minimum(np.arange(start, start + size), n - 1)
            here = counts[rows]
            here[n - start :] = False
            yield start, rows, here


def _contexts(tokens: np.ndarray) -> np.ndarray:
    """A hash of each token and the few before it in its row, uint64 `[token]`."""
    out = np.zeros(tokens.shape, np.uint64)
    with np.errstate(over="ignore"):
        for back in range(CONTEXT):
            out *= np.uint64(0x100000001B3)
            out[:, back:] += tokens[:, : tokens.shape[1] - back].astype(np.uint64) + np.uint64(1)
    return out.reshape(-1)


def of_firings(
    name: str,
    shape: tuple[int, ...],
    tokens: np.ndarray,
    mask: np.ndarray,
    fired: tuple[np.ndarray, np.ndarray, np.ndarray],
    kept: Kept,
) -> Records:
    """Records of firings that are known already: units, places and values, sorted by unit and then by place."""
    site = Site(Tally.none(math.prod(shape), kept.window), Held.none(mask, kept.n_held, kept.seed), [fired])
    site.gather(tokens, _contexts(tokens), kept)
    return _records({name: shape}, [site], [relations.Writing()], tokens, mask, None)[name]


def _records(
    shapes: Mapping[str, tuple[int, ...]],
    sites: list[Site],
    writing: list[relations.Writing],
    tokens: np.ndarray,
    counts: np.ndarray,
    effects: Effects | None,
) -> dict[str, Records]:
    gathered = dict(zip(shapes, sites, strict=True))
    held = {name: site.held.firings(len(site.tally.counts), counts) for name, site in gathered.items()}
    rows = {name: site.held.rows for name, site in gathered.items()}
    together = relations.relate(held, rows, counts)
    found = {}
    for (name, site), writes in zip(gathered.items(), writing, strict=True):
        tally, stream = site.tally, writes.stream
        raised, lowered = (None, None) if effects is None or stream is None else relations.logits(stream, effects)
        found[name] = Records(
            name=name,
            shape=shapes[name],
            tokens=tokens,
            mask=counts,
            counts=tally.counts,
            sums=tally.sums,
            maxima=tally.maxima,
            histogram=tally.histogram,
            strongest=tally.top,
            by_chance=tally.sampled,
            pairs=tally.pairs,
            totals=tally.totals,
            lost=tally.lost,
            held_rows=rows[name],
            held=held[name],
            raised=raised,
            lowered=lowered,
            nearest=None if writes.rows is None else relations.nearest(writes.rows),
            correlated=together[name],
            kind=writes.kind,
        )
    return found
