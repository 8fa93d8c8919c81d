"""Circuits of the heads and MLPs, or of the edges, that matter most, for `ioi.py`: are they enough, whole and needed?

A circuit runs as in the clean prompts while all else runs as in the corrupted ones (resample ablation). Its
faithfulness is the share of the metric that is left: 0 of nothing, 1 of the whole model.
"""

from ioi_heads import Begin, Problem, Scores
import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import circuits, patching

EDGES_BETWEEN = 10  # edges from one circuit that is measured to the next
N_PARTS = 20  # parts of a circuit that are taken out of it, for completeness

Nested = dict[str, circuits.Circuit | circuits.EdgeCircuit]


def largest_circuits(
    every: int, n_edges: int, problem: Problem, heads: Scores, edges: patching.Edges | None, begin: Begin
) -> Nested:
    """By kind, circuits of ever more of the nodes or edges whose scores are largest, along their first axis.

    The first kind is made of nodes; its smallest circuit that is enough is looked at.

    Args:
      every: nodes from one circuit to the next.
      n_edges: of the largest circuit of edges; 0 makes none.
      problem, heads, edges, begin: as in `score_heads`, and what it found.
    """
    begin("MLPs by patching")
    mlps = patching.activation_patch(problem.f, problem.metric, "blocks.mlp_out", "layer")(*problem.args)
    n_nodes = heads["patching"].size + mlps.size
    sizes = jnp.append(jnp.arange(0, n_nodes, every), n_nodes)

    def of_nodes(heads: jax.Array, mlps: jax.Array) -> circuits.Circuit:
        return circuits.Circuit.top(jnp.abs(heads), jnp.abs(mlps), sizes)

    nested: Nested = {}
    if edges is not None:
        nested["nodes by EAP-IG"] = of_nodes(heads["EAP-IG"], edges.sent("mlp"))
    nested["nodes by patching"] = of_nodes(heads["patching"], mlps)
    if edges is not None and n_edges:
        sizes_of_edges = jnp.arange(0, n_edges + 1, EDGES_BETWEEN)
        nested["edges by EAP-IG"] = circuits.EdgeCircuit.top(jax.tree.map(jnp.abs, edges), sizes_of_edges)
    return nested


def faithful(problem: Problem, name: str, circuit: circuits.Circuit | circuits.EdgeCircuit, begin: Begin) -> np.ndarray:
    """The faithfulness of each of the circuits of one kind, `[size]`."""
    begin(name)
    return np.asarray(circuits.faithfulness(problem.f, problem.metric)(*problem.args, circuit).share)


def is_whole_and_needed(problem: Problem, circuit: circuits.Circuit, seed: int, begin: Begin) -> dict[str, float]:
    """Completeness: without a part of it, circuit and model do alike. Minimality: every member is missed."""
    begin("completeness and minimality")
    parts = circuit.random(jax.random.key(seed), N_PARTS)
    gaps = circuits.completeness(problem.f, problem.metric)(*problem.args, circuit, parts).gap
    least = circuits.minimality(problem.f, problem.metric)(*problem.args, circuit)
    of_members = jnp.concatenate([least.heads[circuit.heads], least.mlps[circuit.mlps]])
    return {
        f"completeness, gap over {N_PARTS} parts": float(gaps.mean()),
        "minimality, least share of a member": float(of_members.min()),
    }
