"""`interp-jax graph`: the attribution graph of a prompt, and what it says in a table."""

from pathlib import Path
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_jax.graphs import Graph

TOP = 10  # rows of each table


def graph(
    transcoders: Path,
    prompt: str,
    model: str = "microworld",
    targets: tuple[str, ...] = (),
    features: int = 7500,
    first: int = 1,
    nodes: float = 0.8,
    edges: float = 0.98,
    chat: bool = False,
    out: Path = Path("graph"),
) -> None:
    """Trace what a model says next back to features of transcoders, tokens and errors, as a graph for viewers.

    Prints how much of it features explain, the features with most influence, and what each explained token gets most
    from. The graph is written as Neuronpedia and circuit-tracer have it.

    Args:
        transcoders: Folder of transcoders, one for each layer, or of a cross-layer transcoder.
        prompt: The text that the model goes on from.
        model: A shipped model, a local Hugging Face folder or GGUF file, or a hub id.
        targets: Tokens to explain, with their spaces; by default the likeliest, up to 10 and 95 % of the probability.
        features: How many features become nodes at most, those with most influence.
        first: Positions from the start whose features are left out; 1 is the token with which texts begin.
        nodes: Share of influence that nodes are kept for.
        edges: Share of it that edges are kept for.
        chat: Whether the prompt is said by a user, in the model's chat template.
        out: Folder for the graph.
    """
    import jax.numpy as jnp

    from interp_jax import graphs, models
    from interp_jax.cli import output, subject

    output.check_writable(out)
    some = load_transcoders(transcoders)
    loaded, tokenizer = subject.open_model(model)
    said: Any = [{"role": "user", "content": prompt}] if chat else prompt
    tokens = jnp.asarray(tokenizer.encode(said, chat=True if chat else None), jnp.int32)
    options = {"targets": targets or None, "tokenizer": tokenizer, "n_features": features, "n_first": first}
    whole = graphs.attribution_graph(models.forward, loaded, some, tokens, **options)
    pruned = whole.prune(nodes, edges)
    _print(whole, pruned)
    slug = re.sub(r"\W+", "-", prompt).strip("-")[:40] or "graph"
    path = pruned.to_json(out / f"{slug}.json", scan=Path(model).name, node_threshold=nodes)
    print(f"written: {path}")


def load_transcoders(folder: Path) -> Any:
    """A cross-layer transcoder, or a mapping from layers to transcoders, from a folder of one or of one for each layer.

    Raises:
      FileNotFoundError: there is nothing.
      ValueError: folders that are no transcoders, or do not say their layer.
    """
    from interp_jax import dictionaries
    from interp_jax.core import split_address

    if not folder.is_dir():
        raise FileNotFoundError(f"--transcoders {folder}: no such folder")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and re.search(r"\d+$", path.name))
    if not inside:
        return dictionaries.load(folder)
    found = {}
    for path in inside:
        one = dictionaries.load(path)
        written = one.sites[1] if isinstance(one.sites, tuple) else one.sites
        layer = split_address(written)[1] if written else int(re.findall(r"\d+$", path.name)[0])
        if layer is None or layer in found:
            raise ValueError(f"--transcoders {path}: written for {written!r}: give a folder with one for each layer")
        found[layer] = one
    return found


def _print(whole: "Graph", pruned: "Graph") -> None:
    import numpy as np

    scores = whole.scores()
    print(f"{whole}\npruned: {pruned}")
    print(f"replacement score {scores.replacement:.2f}, completeness score {scores.completeness:.2f}\n")
    influence = pruned.influence()
    chosen = sorted(pruned.find("feature"), key=lambda node: -influence[node])[:TOP]
    print(f"{'feature':>14}  {'token':>14}  {'activation':>10}  {'influence':>9}")
    for node in chosen:
        token = pruned.tokens[pruned.position[node]]
        name = f"{pruned.layer[node]}.{pruned.index[node]}"
        print(f"{name:>14}  {token!r:>14}  {pruned.activation[node]:10.3f}  {influence[node]:9.3f}")
    for target in np.flatnonzero(pruned.weight > 0)[:3]:
        row = pruned.edges[[target]].tocoo()
        order = np.argsort(-np.abs(row.data))[:TOP]
        told = ", ".join(f"{_told(pruned, int(row.col[i]))} {row.data[i]:+.2f}" for i in order)
        print(f"\n{pruned.names.get(int(target), '')!r} ({pruned.weight[target]:.2f}): {told}")
    print()


def _told(graph: "Graph", node: int) -> str:
    kind, position = graph.nodes[node].kind, graph.position[node]
    if kind == "constant":
        return "constants"
    where = f"{graph.tokens[position]!r}"
    if kind == "feature":
        return f"{graph.layer[node]}.{graph.index[node]} at {where}"
    return f"error {graph.layer[node]} at {where}" if kind == "error" else where
