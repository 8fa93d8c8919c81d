"""Circuits of edges as a mask: what a node reads of the senders outside is theirs in the ablated run.

    input of v = sum over senders u of  u's output here  if the edge u -> v is in,  else  u's output in the ablated run

Edges are those of `edge_attribution`, so a query, a key, a value, an MLP and the logits read each sender by itself.
Hanna et al. 2024, arXiv:2403.17806; Conmy et al. 2023, arXiv:2304.14997. Sequential pre-norm decoders only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Int
import numpy as np

from interp_jax.circuits.circuit import Members
from interp_jax.core import Intervention, SiteInfo
from interp_jax.interventions import via
from interp_jax.nodes import READS, WRITES, Edges, check_additive, connected, depth, nodes


@partial(jax.tree_util.register_dataclass, data_fields=["kept"], meta_fields=["senders", "receivers"])
@dataclass(frozen=True)
class EdgeCircuit(Members):
    """Which edges belong to a circuit, or to several, along leading axes. Nodes are named as in `Edges`.

    Attributes:
      kept: bool `[*circuit sender receiver]`; what it says where the graph has no edge does nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import circuits, patching
      >>> edges = patching.Edges(jnp.array([[0.5, 2.0], [0.0, 1.0]]), ("embed", "mlp 0"), ("mlp 0", "logits"))
      >>> circuit = circuits.EdgeCircuit.top(edges, 2)
      >>> circuit.names, circuit.size.item()
      ((('embed', 'logits'), ('mlp 0', 'logits')), 2)
    """

    kept: Any
    senders: tuple[str, ...]
    receivers: tuple[str, ...]

    @classmethod
    def top(cls, edges: Edges, n: int | Int[Typed, "*circuit"]) -> "EdgeCircuit":
        """The circuit of the `n` edges of the largest scores. Sizes `[*circuit]` give a stack of nested circuits.

        Args:
          edges: from `edge_attribution`; `jax.tree.map(jnp.abs, edges)` to ignore signs.
          n: how many edges are kept, at most all of the graph.
        """
        there = connected(edges.senders, edges.receivers)
        scores = jnp.where(there, edges.scores, -jnp.inf)
        ranks = jnp.argsort(jnp.argsort(-scores.ravel())).reshape(scores.shape)
        return cls((ranks < jnp.asarray(n)[..., None, None]) & there, edges.senders, edges.receivers)

    @property
    def size(self) -> Array:
        """How many edges of the graph are in, int32 `[*circuit]`."""
        return (self.kept & connected(self.senders, self.receivers)).sum((-2, -1), dtype=jnp.int32)

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The pairs (sender, receiver) of all edges of a single circuit."""
        found = np.argwhere(np.asarray(self.kept & connected(self.senders, self.receivers)))
        return tuple((self.senders[s], self.receivers[r]) for s, r in found)

    @property
    def axes(self) -> tuple[int, ...]:
        return jnp.shape(self.kept)[:-2]

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(WRITES.values())

    def check(self, name: str, known: Mapping[str, SiteInfo]) -> None:
        check_additive(name, known)
        if (self.senders, self.receivers) != nodes(known):
            raise ValueError(f"{name}: the circuit's nodes are not the model's: take them from edge_attribution of it")
        wanted = [len(self.senders), len(self.receivers)]
        if list(jnp.shape(self.kept)[-2:]) != wanted or not jnp.issubdtype(jnp.result_type(self.kept), jnp.bool_):
            got = f"{jnp.result_type(self.kept)}{list(jnp.shape(self.kept))}"
            raise ValueError(f"{name}: circuit.kept is {got}, the model wants bool{wanted}")

    def edits(self, values: Mapping[str, Array]) -> dict[str, Intervention]:
        senders, edits = _groups(self.senders), {}
        last = sum(group.startswith("mlp") for group in senders) - 1
        away = 1 - self.kept.astype(jnp.float32)
        for receiver, columns in _groups(self.receivers).items():
            before = [sender for sender in senders if depth(sender) < depth(receiver)]
            sources = {sender: _address(WRITES, sender, last) for sender in before}
            there = {sender: _written(values, sender) for sender in before}
            cut = {sender: away[jnp.ix_(*map(jnp.array, (senders[sender], columns)))] for sender in before}
            edits[_address(READS, receiver, last)] = via(sources, _Elsewhere(there, cut))
        return edits


@partial(jax.tree_util.register_dataclass, data_fields=["there", "cut"], meta_fields=[])
@dataclass(frozen=True)
class _Elsewhere:
    """Adds, for every edge, as far as it is cut, what the sender writes in the ablated run less what it writes here.

    there: what each sender writes in the ablated run.
    cut: float32 `[sender receiver]`, how much of each edge is cut, over the heads of both sites; a site without heads
      counts as one.
    """

    there: dict[str, Array]
    cut: dict[str, Array]

    def __call__(self, value: Array, values: Mapping[str, Array]) -> Array:
        total = jnp.zeros((1, 1))
        for sender, here in values.items():
            change = self.there[sender].astype(jnp.float32) - here.astype(jnp.float32)
            change = change if sender.startswith("head") else change[..., None, :]
            total = total + jnp.einsum("...sm,sr->...rm", change, self.cut[sender])
        total = total if total.ndim == value.ndim else total[..., 0, :]
        return (value.astype(jnp.float32) + total).astype(value.dtype)


def _groups(names: tuple[str, ...]) -> dict[str, list[int]]:
    """The indices of the nodes of each kind and layer: "embed", "head 3", "mlp 0"."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name.split(".")[0], []).append(i)
    return groups


def _address(sites: Mapping[str, str], group: str, last: int) -> str:
    """The address where a group reads or writes. The logits read the stream after the last layer."""
    kind, _, layer = group.partition(" ")
    return sites[kind] if kind == "embed" else sites[kind].replace("blocks.", f"blocks.{layer or last}.")


def _written(values: Mapping[str, Array], sender: str) -> Array:
    """What a group of senders writes, taken from captured values by site, or from one number for all of them."""
    kind, _, layer = sender.partition(" ")
    value = values[WRITES[kind]]
    return value[int(layer)] if layer and jnp.ndim(value) else value
