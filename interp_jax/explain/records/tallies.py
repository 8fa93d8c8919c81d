"""What is gathered of units while a corpus is read, of a size that does not grow with it.

A unit's firings come in parts, each of whole rows of text, and a tally of several parts is the tally of all of them:
counts add up; the strongest examples are the strongest of the strongest; and an example by chance is one of those whose
priority, a hash of unit and place, is lowest, so that it is drawn evenly whatever the parts (a bottom-k sample, Cohen
and Kaplan 2007, "Summarizing data using bottom-k sketches"). Some are drawn evenly, and some from each stratum of the
range, quarters of an octave below the maximum, since a unit's weak activations outnumber its strong ones by far.
Caveat: of the tokens that a unit fires on, the `N_TOKENS` commonest are kept at the end of each part, so that a rarer
one may have been counted in some parts alone; `lost` bounds what it lacks.
"""

from dataclasses import dataclass, fields

import numpy as np

OCTAVES = 4  # bins in a doubling of the activation
EDGES = 2.0 ** (np.arange(-20 * OCTAVES, 12 * OCTAVES + 1) / OCTAVES)  # of the bins; beyond, the outermost ones count
N_BINS = len(EDGES) - 1
STRATA = 3 * OCTAVES + 1  # below the maximum; the last is all the rest
N_EVENLY = 8  # times as many are drawn of all of a unit's firings as of a stratum
N_TOKENS = 128  # kept of each unit


@dataclass(frozen=True)
class Examples:
    """Windows of text around places where units fire, sorted by unit.

    Attributes:
      units: int64 `[example]`.
      places: int64 `[example]`, flat index of the token, `sequence * n_positions + position`.
      values: float32 `[example]`, the activation there.
      firsts: int64 `[example]`, the place where the window begins, in the same sequence.
      windows: float16 `[example window]`, the unit's activations in the window, 0 where it does not fire.
    """

    units: np.ndarray
    places: np.ndarray
    values: np.ndarray
    firsts: np.ndarray
    windows: np.ndarray

    @classmethod
    def none(cls, window: int) -> "Examples":
        whole, real = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return cls(whole, whole, real, whole, np.zeros((0, window), np.float16))

    def __getitem__(self, which: np.ndarray) -> "Examples":
        return Examples(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def __add__(self, other: "Examples") -> "Examples":
        columns = ((field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Examples(**{name: np.concatenate([ours, theirs]) for name, ours, theirs in columns})

    def of(self, unit: int) -> "Examples":
        """Those of one unit."""
        return self[np.arange(*np.searchsorted(self.units, [unit, unit + 1]))]


@dataclass(frozen=True)
class Part:
    """Firings of some rows of text, sorted by unit and then by place.

    Attributes:
      units, places: int64 `[firing]`.
      values: float32 `[firing]`.
      tokens: int32 `[firing]`, the token there.
      contexts: uint64 `[firing]`, a hash of that token and the few before it.
      n_positions: tokens in a row.
    """

    units: np.ndarray
    places: np.ndarray
    values: np.ndarray
    tokens: np.ndarray
    contexts: np.ndarray
    n_positions: int


@dataclass(frozen=True)
class Tally:
    """What is known of every unit after some parts.

    Attributes:
      counts: int64 `[unit]`, how often it fires.
      sums: float64 `[unit]`, of its activations.
      maxima: float32 `[unit]`, 0 where it never fires.
      histogram: int32 `[unit bin]`, over `EDGES`.
      top: the strongest examples, of different rows and contexts.
      contexts: uint64 `[example]`, theirs.
      sampled: examples by chance, of each stratum of the range.
      pairs: int64 `[pair 3]`: unit, token, count, sorted by unit and token.
      totals: float64 `[pair]`, the sum of the activations there.
      lost: int64 `[unit]`, how often at most a token was not counted.
    """

    counts: np.ndarray
    sums: np.ndarray
    maxima: np.ndarray
    histogram: np.ndarray
    top: Examples
    contexts: np.ndarray
    sampled: Examples
    pairs: np.ndarray
    totals: np.ndarray
    lost: np.ndarray

    @classmethod
    def none(cls, n_units: int, window: int) -> "Tally":
        """Of no text."""
        return cls(
            counts=np.zeros(n_units, np.int64),
            sums=np.zeros(n_units, np.float64),
            maxima=np.zeros(n_units, np.float32),
            histogram=np.zeros((n_units, N_BINS), np.int32),
            top=Examples.none(window),
            contexts=np.zeros(0, np.uint64),
            sampled=Examples.none(window),
            pairs=np.zeros((0, 3), np.int64),
            totals=np.zeros(0, np.float64),
            lost=np.zeros(n_units, np.int64),
        )

    def add(self, part: Part, *, n_top: int, n_sampled: int, seed: int) -> "Tally":
        """The tally with one more part.

        Args:
          part: of rows that no part before had.
          n_top: strongest examples of a unit.
          n_sampled: examples of each stratum.
          seed: of the examples by chance.
        """
        n = len(self.counts)
        begins = np.flatnonzero(np.diff(part.units, prepend=-1))  # of each unit that fires
        maxima = self.maxima.copy()
        if len(begins):
            here = part.units[begins]
            maxima[here] = np.maximum(maxima[here], np.maximum.reduceat(part.values, begins))
        bins = part.units * N_BINS + _bin(part.values)
        histogram = np.bincount(bins, minlength=n * N_BINS).reshape(n, N_BINS).astype(np.int32)
        top, contexts = self._strongest(part, n_top)
        pairs, totals, lost = self._tokens(part)
        return Tally(
            counts=self.counts + np.bincount(part.units, minlength=n),
            sums=self.sums + np.bincount(part.units, part.values, minlength=n),
            maxima=maxima,
            histogram=self.histogram + histogram,
            top=top,
            contexts=contexts,
            sampled=self._by_chance(part, maxima, n_sampled, seed),
            pairs=pairs,
            totals=totals,
            lost=lost,
        )

    def _strongest(self, part: Part, n_top: int) -> tuple[Examples, np.ndarray]:
        least = np.zeros(len(self.counts), np.float32)  # what a firing must exceed where a unit has its examples
        ranks = _ranks(self.top.units)
        full = ranks == n_top - 1
        least[self.top.units[full]] = self.top.values[full]
        new = np.flatnonzero(part.values > least[part.units])
        new = new[_best(part.units[new], part.places[new] // part.n_positions, part.values[new], part.places[new])]
        both = self.top + _windows(part, new, self.top.windows.shape[1])
        contexts = np.concatenate([self.contexts, part.contexts[new]])
        kept = _best(both.units, contexts, both.values, both.places)
        kept = kept[np.lexsort((both.places[kept], -both.values[kept], both.units[kept]))]
        kept = kept[_ranks(both.units[kept]) < n_top]
        return both[kept], contexts[kept]

    def _by_chance(self, part: Part, maxima: np.ndarray, n_sampled: int, seed: int) -> Examples:
        highest, n = _bin(maxima), len(maxima)

        def groups(some: Part | Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """The priorities of firings, the strata that they are in, and their units."""
            strata = some.units * STRATA + np.minimum(highest[some.units] - _bin(some.values), STRATA - 1)
            return _priority(some.units, some.places, seed), strata, some.units

        def bounds(priorities: np.ndarray, strata: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """The highest priority that is drawn of each stratum, and of each unit evenly."""
            of_strata = _lowest(strata, priorities, n_sampled, n * STRATA)
            return of_strata, _lowest(units, priorities, N_EVENLY * n_sampled, n)

        def drawn(candidates: tuple[np.ndarray, ...], bound: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
            priorities, strata, units = candidates
            return np.flatnonzero((priorities <= bound[0][strata]) | (priorities <= bound[1][units]))

        found = groups(part)
        new = drawn(found, bounds(*groups(self.sampled)))  # what may be drawn: sorting the rest would be slow
        few = tuple(x[new] for x in found)
        new = new[drawn(few, bounds(*few))]
        both = self.sampled + _windows(part, new, self.sampled.windows.shape[1])
        every = groups(both)
        kept = drawn(every, bounds(*every))
        return both[kept[np.lexsort((every[0][kept], both.units[kept]))]]

    def _tokens(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        key = part.units << 32 | part.tokens
        found, index, counts = np.unique(key, return_inverse=True, return_counts=True)
        key = np.concatenate([self.pairs[:, 0] << 32 | self.pairs[:, 1], found])
        counts = np.concatenate([self.pairs[:, 2], counts])
        totals = np.concatenate([self.totals, np.bincount(index.ravel(), part.values, minlength=len(found))])
        key, index = np.unique(key, return_inverse=True)
        counts = np.bincount(index.ravel(), counts, minlength=len(key)).astype(np.int64)
        totals = np.bincount(index.ravel(), totals, minlength=len(key))
        units = key >> 32
        order = np.lexsort((key, -counts, units))
        ranks = _ranks(units[order])
        lost = self.lost.copy()
        first = order[ranks == N_TOKENS]  # the commonest that goes
        lost[units[first]] += counts[first]
        kept = np.sort(order[ranks < N_TOKENS])
        return np.stack([units, key & 0xFFFFFFFF, counts], axis=1)[kept], totals[kept], lost


def _bin(values: np.ndarray) -> np.ndarray:
    """The bins of `EDGES` that values above 0 are in; 0 is in the lowest."""
    with np.errstate(divide="ignore"):
        at = np.floor(np.log2(values.astype(np.float64)) * OCTAVES) + 20 * OCTAVES
    return np.clip(at, 0, N_BINS - 1).astype(np.int64)


def _lowest(groups: np.ndarray, priorities: np.ndarray, n: int, n_groups: int) -> np.ndarray:
    """The n-th lowest priority of each group, the highest there is where it has no more than n; uint64 `[n_groups]`."""
    order = np.lexsort((priorities, groups))
    last = order[_ranks(groups[order]) == n - 1]
    bound = np.full(n_groups, np.iinfo(np.uint64).max, np.uint64)
    bound[groups[last]] = priorities[last]
    return bound


def _ranks(groups: np.ndarray) -> np.ndarray:
    """The place of each within its group, where equal groups stand together."""
    begins = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1)) if len(groups) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(begins, len(groups)))
    return np.arange(len(groups)) - np.repeat(begins, sizes)


def _best(units: np.ndarray, groups: np.ndarray, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The strongest of each unit and group, the first of equals; indices, sorted by unit."""
    order = np.lexsort((places, -values, groups, units))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(units[order]) != 0) | (groups[order][1:] != groups[order][:-1])
    return order[first]


def _priority(units: np.ndarray, places: np.ndarray, seed: int) -> np.ndarray:
    """A hash of unit and place, evenly distributed: splitmix64 of Steele, Lea and Flood 2014."""
    with np.errstate(over="ignore"):
        x = _mixed(units.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))
        return _mixed(x ^ places.astype(np.uint64))


def _mixed(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _windows(part: Part, which: np.ndarray, window: int) -> Examples:
    """The examples at some firings of a part, with a quarter of their window after them where there is room."""
    units, places = part.units[which], part.places[which]
    row = places // part.n_positions * part.n_positions
    firsts = row + np.clip(places - row - (3 * window) // 4, 0, part.n_positions - window)
    span = int(part.places.max(initial=0)) + window + 1
    keys = part.units * span + part.places
    begins, ends = (np.searchsorted(keys, units * span + at) for at in (firsts, firsts + window))
    sizes = ends - begins
    example = np.repeat(np.arange(len(which)), sizes)
    firing = np.arange(len(example)) + np.repeat(ends - np.cumsum(sizes), sizes)
    windows = np.zeros((len(which), window), np.float16)
    windows[example, part.places[firing] - firsts[example]] = np.minimum(part.values[firing], np.finfo(np.float16).max)
    return Examples(units, places, part.values[which], firsts, windows)
