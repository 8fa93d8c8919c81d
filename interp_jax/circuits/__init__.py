"""Circuits: masks over the components of a model, and how much of its work those that are in do alone."""

from interp_jax.circuits.benchmark import FRACTIONS, Areas, areas
from interp_jax.circuits.circuit import Circuit
from interp_jax.circuits.completeness import Completeness, completeness, greedy_removal
from interp_jax.circuits.edge_circuit import EdgeCircuit
from interp_jax.circuits.edge_mask import edge_mask
from interp_jax.circuits.faithfulness import Faithfulness, Minimality, faithfulness, minimality

__all__ = [
    "FRACTIONS",
    "Areas",
    "Circuit",
    "Completeness",
    "EdgeCircuit",
    "Faithfulness",
    "Minimality",
    "areas",
    "completeness",
    "edge_mask",
    "faithfulness",
    "greedy_removal",
    "minimality",
]
