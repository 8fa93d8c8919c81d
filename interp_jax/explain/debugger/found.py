"""What an explanation of one prediction found: the scores of every node, which print as a table of the largest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
import html
import re
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

NAMES = ("magnitude", "direct", "query", "key", "gradient")  # of scores, in the order of the table
SHOWN = 12  # rows of the table
_PLACE = re.compile(
    r"(?P<kind>[a-z_.0-9]*[a-z_]( (feature|error|bias))?)( (?P<layer>\d+)(\.(?P<unit>\d+))?)? at (?P<position>-?\d+)"
)


class Node(NamedTuple):
    """One thing that writes to the residual stream at one position.

    kind: "embed", "pos_embed", "head", "neuron", "attn_bias", "mlp_bias", or of a dictionary at `blocks.mlp_out`
      "mlp_out feature", "mlp_out error", "mlp_out bias", and likewise of other sites.
    layer: its layer; None of embeddings.
    unit: the number of the head, neuron or feature; None of what there is one of.
    position: the index of its token in the row, padding included.
    """

    kind: str
    layer: int | None
    unit: int | None
    position: int

    @property
    def name(self) -> str:
        """What it is called wherever it stands: "head 18.6"."""
        where = "" if self.layer is None else f" {self.layer}" + ("" if self.unit is None else f".{self.unit}")
        return f"{self.kind}{where}"

    def __str__(self) -> str:
        return f"{self.name} at {self.position}"

    @classmethod
    def read(cls, text: str) -> "Node":
        """The node of a name as it is printed: "head 18.6 at 13".

        Raises:
          ValueError: it has another form.

        Example:
          >>> Node.read("mlp_out feature 2.33 at 5")
          Node(kind='mlp_out feature', layer=2, unit=33, position=5)
        """
        found = _PLACE.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"node {text!r}: give a name as it is printed, such as 'head 18.6 at 13'")
        layer, unit = (None if found[name] is None else int(found[name]) for name in ("layer", "unit"))
        return cls(found["kind"], layer, unit, int(found["position"]))


class Row(NamedTuple):
    """A node with its scores by name."""

    node: Node
    scores: dict[str, float]


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["kind", "layers"])
@dataclass(frozen=True)
class Scores:
    """The scores of the nodes of one kind.

    Attributes:
      kind: as in `Node`.
      layers: the number of each layer; None of embeddings.
      values: name of the score -> float32 `[layer position unit]`.
    """

    kind: str
    layers: tuple[int | None, ...]
    values: Mapping[str, Array]

    @property
    def counted(self) -> bool:
        """Whether there are several units, which have numbers."""
        return self.kind in ("head", "neuron") or self.kind.endswith(" feature")

    def node(self, place: int, position: int, unit: int) -> Node:
        """The node at a place of the arrays."""
        return Node(self.kind, self.layers[place], unit if self.counted else None, position)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "real", "position", "value", "constants", "parts", "logits"],
    meta_fields=["title", "tokenizer"],
)
@dataclass(frozen=True)
class Why:
    """Why something is as large as it is: a difference of two logits, a node's activation, or an attention score.

    Attributes:
      title: what is explained.
      tokenizer: gives tokens their text where it is printed, or None.
      tokens, real: int and bool `[position]`, the prompt and where it is no padding.
      position: int32 `[]`, where it is explained.
      value: float32 `[]`, what is explained.
      constants: name of a score that adds up -> float32 `[]`, what no node writes: biases of norms and of what reads.
      parts: the `Scores` of the nodes, kind by kind: "magnitude", the norm of what a node writes; "direct", what that
        adds to the value with all else held ("query" and "key" of an attention score); "gradient", the activation times
        the slope of the value.
      logits: float32 `[d_vocab]` at the position, before a cap.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import explain, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park , John gave a ring to"))
      >>> why = explain.why(models.forward, " Mary", " John", tokenizer=tokenizer)
      >>> found = why(model, models.weights(model), tokens)
      >>> bool(abs(found.total("direct") - found.value) < 1e-3), len(found.top(5, by="gradient"))
      (True, 5)
    """

    title: str
    tokenizer: Any
    tokens: Any
    real: Any
    position: Any
    value: Any
    constants: Mapping[str, Any]
    parts: tuple[Scores, ...]
    logits: Any

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scores."""
        return tuple(name for name in NAMES if name in self.parts[0].values)

    def total(self, by: str) -> Array:
        """The sum of a score over all nodes, and of what no node writes; of a score that adds up, the value."""
        self._check(by)
        if by not in self.constants:
            raise ValueError(f"total: {by!r} does not add up; {' and '.join(self._additive())} do")
        return sum((part.values[by].sum() for part in self.parts), jnp.asarray(self.constants[by]))

    def top(self, n: int = 10, *, by: str | None = None, kinds: Sequence[str] | None = None) -> list[Row]:
        """The nodes with the largest scores, whatever their sign.

        Args:
          n: how many at most; none whose score is 0.
          by: a name of `names`; by default the first of those that add up.
          kinds: of `Node.kind`, if not all.

        Raises:
          ValueError: no such score or kind, or `n` below 1.
        """
        by = self._additive()[0] if by is None else by
        self._check(by)
        there = {part.kind for part in self.parts}
        if n < 1 or not set(kinds or there) <= there:
            raise ValueError(f"top: n={n}, kinds={kinds}: give 1 or more, of the kinds {', '.join(sorted(there))}")
        best: list[tuple[float, int, int]] = []
        for number, part in enumerate(self.parts):
            if kinds is None or part.kind in kinds:
                sizes = np.abs(np.asarray(part.values[by])).ravel()
                order = np.argpartition(-sizes, min(n, len(sizes) - 1))[:n]
                best += [(float(sizes[i]), number, int(i)) for i in order if sizes[i] > 0]
        best.sort(key=lambda one: (-one[0], one[1:]))
        return [self._row(self.parts[number], i) for _, number, i in best[:n]]

    def rows(self) -> Iterator[Row]:
        """Every node."""
        for part in self.parts:
            yield from (self._row(part, i) for i in range(part.values[self.names[0]].size))

    def __getitem__(self, node: Node | str) -> Row:
        """The scores of one node, given as such or by its name.

        Raises:
          KeyError: it is not there.
        """
        node = Node.read(node) if isinstance(node, str) else node
        n_positions = len(self.tokens)
        for part in self.parts:
            if part.kind == node.kind and node.layer in part.layers and part.counted == (node.unit is not None):
                shape = part.values[self.names[0]].shape
                if 0 <= node.position < n_positions and 0 <= (node.unit or 0) < shape[2]:
                    place = part.layers.index(node.layer), node.position, node.unit or 0
                    return self._row(part, int(np.ravel_multi_index(place, shape)))
        raise KeyError(
            f"{node}: there is no such node; kinds are {', '.join(dict.fromkeys(p.kind for p in self.parts))}"
        )

    def words(self) -> list[str]:
        """The text of each token; its number without a tokenizer."""
        ids = np.asarray(self.tokens)
        return [str(i) for i in ids] if self.tokenizer is None else list(self.tokenizer.to_str_tokens(ids))

    def likeliest(self, n: int = 5) -> list[tuple[str, float]]:
        """The tokens with the highest logits at the position, and these."""
        return likeliest(self.logits, self.tokenizer, n)

    def table(self, n: int = SHOWN, *, by: str | None = None) -> list[tuple[str, ...]]:
        """The table as texts, its head first."""
        words = self.words()
        body = [
            (
                row.node.name,
                f"{row.node.position} {words[row.node.position]!r}",
                *(f"{x:.3f}" for x in row.scores.values()),
            )
            for row in self.top(n, by=by)
        ]
        return [("node", "position", *self.names), *body]

    def __str__(self) -> str:
        rows = self.table()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        aligned = [
            [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
            for row in rows
        ]
        lines = ["  ".join(row).rstrip() for row in aligned]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join([self._head(), *lines])

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        head, *body = self.table()
        rows = row(head, "th") + "".join(row(cells, "td") for cells in body)
        return f"<p>{html.escape(self._head())}</p><table>{rows}</table>"

    def _head(self) -> str:
        constants = ", ".join(f"{float(self.constants[name]):.3f} ({name})" for name in self._additive())
        return f"{self.title}: {float(self.value):.3f}; of no node: {constants}"

    def _additive(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name in self.constants)

    def _check(self, by: str) -> None:
        if by not in self.names:
            raise ValueError(f"by={by!r}: there is no such score; give one of {', '.join(self.names)}")

    def _row(self, part: Scores, index: int) -> Row:
        place, position, unit = (int(i) for i in np.unravel_index(index, part.values[self.names[0]].shape))
        scores = {name: float(np.asarray(part.values[name]).flat[index]) for name in self.names}
        return Row(part.node(place, position, unit), scores)


def likeliest(logits: Any, tokenizer: Any, n: int) -> list[tuple[str, float]]:
    """The tokens with the highest logits `[d_vocab]`, as text (as a number without a tokenizer), and these."""
    values = np.asarray(logits)
    best = np.argsort(-values)[:n]
    words = [str(i) for i in best] if tokenizer is None else tokenizer.to_str_tokens(best)
    return [(word, float(values[i])) for word, i in zip(words, best, strict=True)]
