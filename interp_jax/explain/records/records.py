"""What a corpus tells about every unit, a feature of a dictionary or a neuron of a site: the result of `record`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.explain.records.firings import Firings
from interp_jax.explain.records.tallies import EDGES, Examples

N_INTERVALS = 5
N_DECILES = 10
Ranked = tuple[np.ndarray, np.ndarray]  # indices and values, `[unit n]` each, the largest value first


@dataclass(frozen=True, eq=False)
class Records:
    """What a corpus tells about the units of one site.

    Attributes:
      name: the address of the site.
      shape: of the units: `(d_sae,)`, or `(layers, d)`, numbered one after the other, layer by layer.
      tokens: int32 `[sequence position]`, the corpus.
      mask: bool `[sequence position]`, False at padding and at special tokens, which do not count.
      counts: int64 `[unit]`, on how many tokens each fires, which is: its activation is above 0.
      sums: float64 `[unit]`, the sum of its activations there.
      maxima: float32 `[unit]`, its largest activation; 0 where it never fires.
      histogram: int32 `[unit bin]`, how many of its activations are between `EDGES[bin]` and `EDGES[bin + 1]`.
      strongest: the examples with the largest activations, of different texts and contexts, the strongest first.
      by_chance: examples drawn from each stratum of the range.
      pairs: int64 `[pair 3]`, unit, token, count: on which tokens each unit fires.
      totals: float64 `[pair]`, the sum of the activations there.
      lost: int64 `[unit]`, how many firings on one token may be missing in its count.
      held_rows: int64 `[row]`, rows drawn by chance, of which all firings are held.
      held: the firings in those rows.
      raised, lowered: token ids and values `[unit n]`, the largest effects of a unit on the logits; None where that is
        not defined.
      nearest: indices and cosines `[unit n]` of the units that write what is most alike; None where it is not known.
      correlated: name of records -> indices and Pearson's r `[unit n]` of the units there that fire the most alike,
        over the tokens of `held_rows`.
      kind: what the units are: "neurons", or the name of the dictionary's class.
    """

    name: str
    shape: tuple[int, ...]
    tokens: np.ndarray
    mask: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    maxima: np.ndarray
    histogram: np.ndarray
    strongest: Examples
    by_chance: Examples
    pairs: np.ndarray
    totals: np.ndarray
    lost: np.ndarray
    held_rows: np.ndarray
    held: Firings
    raised: Ranked | None
    lowered: Ranked | None
    nearest: Ranked | None
    correlated: dict[str, Ranked]
    kind: str = "neurons"

    @property
    def n_units(self) -> int:
        return len(self.counts)

    @property
    def n_tokens(self) -> int:
        """How many tokens count."""
        return int(self.mask.sum())

    @property
    def densities(self) -> np.ndarray:
        """The share of the tokens on which each unit fires, float64 `[unit]`."""
        return self.counts / max(self.n_tokens, 1)

    def check(self, unit: int) -> int:
        """The unit, if there is one of that number.

        Raises:
          ValueError: there is none.
        """
        if not 0 <= unit < self.n_units:
            raise ValueError(f"{self.name}: unit {unit} of {self.n_units}; they are numbered from 0")
        return int(unit)

    def fired_on(self, unit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids that a unit fires on, how often, and the mean activation there; the most frequent first."""
        here = slice(*np.searchsorted(self.pairs[:, 0], [self.check(unit), unit + 1]))
        tokens, counts = self.pairs[here, 1], self.pairs[here, 2]
        order = np.argsort(-counts, kind="stable")
        return tokens[order], counts[order], (self.totals[here] / counts)[order]

    def top(self, unit: int, strings: Sequence[str], n: int = 6, *, width: int = 64) -> tuple[Excerpt, ...]:
        """The strongest examples of a unit, of different texts and contexts; none where it never fires.

        Args:
          unit: its number.
          strings: the text of every token of the vocabulary.
          n: how many, at most.
          width: tokens of an example, at most, a quarter of them after the one that fires; `record` keeps 64.
        """
        found = self.strongest.of(self.check(unit))
        return tuple(self._excerpt(found, i, strings, width) for i in range(min(n, len(found.units))))

    def intervals(
        self, unit: int, strings: Sequence[str], n: int = 2, *, width: int = 64
    ) -> tuple[tuple[float, float, tuple[Excerpt, ...]], ...]:
        """Examples by chance from each fifth of a unit's range, `(low, high, examples)`, the highest first."""
        found = self._chance_and_top(unit)
        edges = np.linspace(0.0, float(self.maxima[unit]), N_INTERVALS + 1)
        drawn = []
        for low, high in reversed(list(zip(edges[:-1], edges[1:], strict=True))):
            inside = np.flatnonzero((found.values > low) & (found.values <= high))
            chosen = tuple(self._excerpt(found, int(i), strings, width) for i in inside[:n])
            drawn.append((float(low), float(high), chosen))
        return tuple(drawn) if self.counts[unit] else ()

    def sampled(
        self, unit: int, strings: Sequence[str], n: int, seed: int = 0, *, width: int = 64
    ) -> tuple[Excerpt, ...]:
        """Examples of a unit from each tenth of its firings by rank, as evenly as there are some, the strongest first.

        Args:
          unit: its number.
          strings: the text of every token of the vocabulary.
          n: how many, at most.
          seed: of which are drawn from a tenth.
          width: tokens of an example, at most.
        """
        found = self._chance_and_top(unit)
        counts = self.histogram[unit]
        below = np.append(0, np.cumsum(counts))
        rank = np.interp(np.log2(np.maximum(found.values, EDGES[0])), np.log2(EDGES), below) / max(below[-1], 1)
        decile = np.clip((rank * N_DECILES).astype(int), 0, N_DECILES - 1)
        order = np.random.default_rng((seed, unit)).permutation(len(found.units))
        turn = np.zeros(len(order), int)  # the how-manieth of its decile, so that all give in turn
        seen = np.zeros(N_DECILES, int)
        for i in order:
            turn[i], seen[decile[i]] = seen[decile[i]], seen[decile[i]] + 1
        chosen = np.lexsort((-decile, turn))[:n]
        strongest_first = chosen[np.argsort(-found.values[chosen])]
        return tuple(self._excerpt(found, int(i), strings, width) for i in strongest_first)

    def random(
        self, unit: int, strings: Sequence[str], n: int, seed: int = 0, *, width: int = 64
    ) -> tuple[Excerpt, ...]:
        """Windows of text by chance, with the unit's activations there. The focus is the last token."""
        return self._held(unit, strings, n, seed, width, quiet=False)

    def quiet(
        self, unit: int, strings: Sequence[str], n: int, seed: int = 0, *, width: int = 64
    ) -> tuple[Excerpt, ...]:
        """Windows of text by chance in which the unit never fires; fewer where there are not as many."""
        return self._held(unit, strings, n, seed, width, quiet=True)

    def _chance_and_top(self, unit: int) -> Examples:
        """The examples by chance in an order by chance, with the strongest where they are the same text only once."""
        found = self.by_chance.of(self.check(unit))
        top = self.strongest.of(unit)
        both = found + top[~np.isin(top.places, found.places)]
        chance = np.random.default_rng(unit).permutation(len(found.units))
        return both[np.append(chance, np.arange(len(found.units), len(both.units)))]

    def _held(
        self, unit: int, strings: Sequence[str], n: int, seed: int, width: int, *, quiet: bool
    ) -> tuple[Excerpt, ...]:
        values, n_positions = self.held.dense(self.check(unit)), self.tokens.shape[1]
        width = min(width, n_positions)
        rng = np.random.default_rng((seed, unit, 1))
        drawn: list[Excerpt] = []
        for row in rng.permutation(len(self.held_rows)):
            if len(drawn) == n:
                break
            first = int(rng.integers(0, n_positions - width + 1))
            here = slice(first, first + width)
            counted = self.mask[self.held_rows[row], here]
            if not counted.any() or (quiet and values[row, here].any()):
                continue
            ids = self.tokens[self.held_rows[row], here][counted]
            shown = tuple(map(float, values[row, here][counted]))
            drawn.append(Excerpt(tuple(strings[int(t)] for t in ids), shown, len(ids) - 1))
        return tuple(drawn)

    def _excerpt(self, found: Examples, i: int, strings: Sequence[str], width: int) -> Excerpt:
        row, first = divmod(int(found.firsts[i]), self.tokens.shape[1])
        at, n = int(found.places[i] - found.firsts[i]), found.windows.shape[1]
        skipped = max(0, min(at - 3 * width // 4, n - width))
        inside = slice(skipped, min(skipped + width, n))
        here = slice(first + inside.start, first + inside.stop)
        counted = self.mask[row, here]
        ids, values = self.tokens[row, here][counted], found.windows[i, inside][counted].astype(np.float32)
        focus = int(counted[: at - skipped].sum())
        return Excerpt(tuple(strings[int(t)] for t in ids), tuple(map(float, values)), focus)
