"""What the dashboard shows, as JSON: the list of units of each source in parts, a page of each unit, the heads.

Bricken et al. 2023, "Towards Monosemanticity", appendix on the feature dashboards: examples from each fifth of the
range stand beside the strongest, since a feature is only as clear as its weak activations. The server and a static copy
give the same, and nothing here is of HTTP or of files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
import math
from typing import Any

import numpy as np

from interp_jax import explain
from interp_jax.explain import Excerpt, Explanation, Records
from interp_jax.report.head_list import HeadList

CHUNK = 4096  # units in one part of a list
SHARD = 16  # units in one file of a static copy
N_TOKENS, N_LISTED = 12, 5  # tokens that a unit fires on, on its page and in the list

Json = dict[str, Any]


class Absent(LookupError):
    """What is asked for is not there."""


@dataclass(frozen=True)
class Live:
    """What the dashboard asks a model that runs; `report` itself has none.

    Attributes:
      fire: `(source, unit, text) -> (tokens, values)`, the text's tokens and the unit's activation on each.
      steer: `(source, unit, prompt, strength) -> (before, after)`, how the prompt goes on without, and with the unit
        held at `strength` times its maximum.
      fires, steers: the sources that each knows.

    Both raise ValueError, with a line for the reader, for what they cannot do.
    """

    fire: Callable[[str, int, str], tuple[Sequence[str], Sequence[float]]]
    steer: Callable[[str, int, str, float], tuple[str, str]]
    fires: frozenset[str]
    steers: frozenset[str]


@dataclass(frozen=True)
class Board:
    """What a dashboard is made of.

    Attributes:
      title: what is shown at the top.
      records: name of a source -> its `explain.Records`.
      strings: the text of every token of the vocabulary.
      facts: name of a source -> name -> value, shown above its list.
      explanations: of units, such as the values of `explain.load_explanations`.
      heads: from `head_list`, or None.
      live: what runs the model, or None.
      remedy: the command that has what a page without a model lacks.

    Raises:
      ValueError: there are no records.
    """

    title: str
    records: Mapping[str, Records]
    strings: Sequence[str]
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    explanations: Sequence[Explanation] = ()
    heads: HeadList | None = None
    live: Live | None = None
    remedy: str = "interp-jax dashboard DICT"

    def __post_init__(self) -> None:
        if not self.records:
            raise ValueError("Board: there are no records to show; make some with explain.record")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the sources, in the order by which they are numbered."""
        return tuple(self.records)

    @cached_property
    def _said(self) -> dict[tuple[str, int], list[Explanation]]:
        """What was said of each unit, by the name of its records and its number."""
        found: dict[tuple[str, int], list[Explanation]] = {}
        for one in self.explanations:
            found.setdefault((one.records, one.unit), []).append(one)
        return found

    def records_of(self, place: int) -> Records:
        """The records of the source of a number.

        Raises:
          Absent: there is none.
        """
        if not 0 <= place < len(self.names):
            raise Absent(f"source {place} of {len(self.names)}")
        return self.records[self.names[place]]

    def index(self) -> Json:
        """What the whole page is told first."""
        return {
            "title": self.title,
            "sources": [self._source(records) for records in self.records.values()],
            "heads": self.heads is not None,
            "live": self.live is not None,
            "remedy": self.remedy,
            "shard": SHARD,
        }

    def _source(self, records: Records) -> Json:
        return {
            "name": records.name,
            "facts": [[name, value] for name, value in self.facts.get(records.name, {}).items()],
            "noun": "neuron" if records.kind == "neurons" else "feature",
            "n_units": records.n_units,
            "per_layer": records.shape[-1] if len(records.shape) > 1 and records.shape[0] > 1 else 0,
            "n_tokens": records.n_tokens,
            "n_chunks": -(-records.n_units // CHUNK),
            "scores": self._scores(records.name),
            "fires": self.live is not None and records.name in self.live.fires,
            "steers": self.live is not None and records.name in self.live.steers,
        }

    def _scores(self, name: str) -> list[str]:
        """The names of all scores of the first explanations in a source."""
        firsts = (said[0] for (source, _), said in self._said.items() if source == name)
        return list(dict.fromkeys(score for said in firsts for score in said.scores))

    def listed(self, place: int, chunk: int) -> Json:
        """A part of the list of a source, column by column.

        Raises:
          Absent: there is no such source or part.
        """
        records = self.records_of(place)
        if not 0 <= chunk < -(-records.n_units // CHUNK):
            raise Absent(f"part {chunk} of the list of {records.name}")
        units = range(chunk * CHUNK, min(records.n_units, (chunk + 1) * CHUNK))
        first = [self._said.get((records.name, unit), (None,))[0] for unit in units]
        densities = records.densities
        return {
            "start": units.start,
            "density": [short(densities[unit]) for unit in units],
            "maximum": [short(records.maxima[unit]) for unit in units],
            "tokens": [self._tokens(records, unit, N_LISTED) for unit in units],
            "text": ["" if said is None else said.text for said in first],
            "scores": {
                name: [
                    None if said is None or name not in said.scores else short(said.scores[name][0]) for said in first
                ]
                for name in self._scores(records.name)
            },
        }

    def _tokens(self, records: Records, unit: int, n: int) -> list[str]:
        return [self.strings[int(token)] for token in records.fired_on(unit)[0][:n]]

    def unit(self, place: int, unit: int) -> Json:
        """The page of a unit.

        Raises:
          Absent: there is no such source or unit.
        """
        records = self.records_of(place)
        self.check(place, unit)
        ids, counts, means = (column[:N_TOKENS] for column in records.fired_on(unit))
        said = self._said.get((records.name, unit), ())
        return {
            "unit": unit,
            "count": int(records.counts[unit]),
            "density": short(records.densities[unit]),
            "maximum": short(records.maxima[unit]),
            "mean": short(records.sums[unit] / max(records.counts[unit], 1)),
            "histogram": _histogram(records.histogram[unit]),
            "top": [excerpt(one) for one in records.top(unit, self.strings)],
            "intervals": [
                {"low": short(low), "high": short(high), "examples": [excerpt(one) for one in examples]}
                for low, high, examples in records.intervals(unit, self.strings)
            ],
            "fired_on": [
                [self.strings[int(token)], int(n), short(mean)]
                for token, n, mean in zip(ids, counts, means, strict=True)
            ],
            "raised": self._ranked_tokens(records.raised, unit),
            "lowered": self._ranked_tokens(records.lowered, unit),
            "correlated": {name: self._near(name, found, unit) for name, found in records.correlated.items()},
            "nearest": [] if records.nearest is None else self._near(records.name, records.nearest, unit),
            "explanations": [
                {"text": one.text, "explainer": one.explainer, "scores": {k: _told(v) for k, v in one.scores.items()}}
                for one in said
            ],
        }

    def head(self, layer: int, head: int) -> Json:
        """The page of a head.

        Raises:
          Absent: there is none.
        """
        if self.heads is None or not (0 <= layer < len(self.heads.pages) and 0 <= head < len(self.heads.pages[layer])):
            raise Absent(f"head {layer}.{head}")
        return self.heads.pages[layer][head]

    def check(self, place: int, unit: int) -> None:
        """Raises Absent where the source has no such unit."""
        records = self.records_of(place)
        if not 0 <= unit < records.n_units:
            raise Absent(f"unit {unit} of {records.name}, which has {records.n_units}")

    def _ranked_tokens(self, found: Any, unit: int) -> list[list[Any]]:
        if found is None:
            return []
        ids, values = (column[unit] for column in found)
        return [[self.strings[int(token)], short(value)] for token, value in zip(ids, values, strict=True)]

    def _near(self, name: str, found: Any, unit: int) -> list[list[Any]]:
        """Units of a source, with what each is about; those of one that is not shown are left out."""
        if name not in self.records:
            return []
        ids, values = (column[unit] for column in found)
        return [
            [int(i), short(value), self._about(self.records[name], int(i))]
            for i, value in zip(ids, values, strict=True)
            if value > 0
        ]

    def _about(self, records: Records, unit: int) -> str:
        """An explanation, or the token that it fires on most often."""
        said = self._said.get((records.name, unit))
        return said[0].text if said else next(iter(self._tokens(records, unit, 1)), "")


def excerpt(one: Excerpt) -> Json:
    """An example as JSON."""
    return {"tokens": list(one.tokens), "values": [short(value) for value in one.values], "focus": one.focus}


def short(x: Any) -> Any:
    """A number with four digits, which is what is shown; None for what is not finite, which JSON has no word for."""
    x = float(x)
    return float(f"{x:.4g}") if math.isfinite(x) else None


def _told(score: tuple[float, float, float]) -> Json:
    return dict(zip(("value", "low", "high"), map(short, score), strict=True))


def _histogram(counts: np.ndarray) -> Json:
    """The bins from the first that has something to the last."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return {"edges": [], "counts": []}
    first, last = int(filled[0]), int(filled[-1])
    edges = [short(edge) for edge in explain.EDGES[first : last + 2]]
    return {"edges": edges, "counts": [int(n) for n in counts[first : last + 1]]}
