"""`interp-jax graph`: the attribution graph of a prompt, and what it says in a table."""

from pathlib import Path
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_jax.graphs import Graph

TOP = 10  # rows of each table


def graph(
    prompt: str,
    transcoders: str = "microworld-transcoders",
    model: str = "microworld",
    targets: tuple[str, ...] = (),
    features: int = 7500,
    first: int = 1,
    nodes: float = 0.8,
    edges: float = 0.98,
    text: Path | None = None,
    chat: bool = False,
    out: Path = Path("graph"),
) -> None:
    """Trace what a model says next back to features of transcoders, tokens and errors, as a graph for viewers.

    Prints how much of it features explain, the features with most influence, and what each explained token gets most
    from. The graph is written as Neuronpedia and circuit-tracer have it.

    Args:
        prompt: The text that the model goes on from.
        transcoders: Folder of transcoders, layer_0 and so on, or of a cross-layer one; or a shipped set.
        model: A shipped model, a local Hugging Face folder or GGUF file, or a hub id.
        targets: Tokens to explain, with their spaces; by default the likeliest, up to 10 and 95 % of the probability.
        features: How many features become nodes at most, those with most influence.
        first: Positions from the start whose features are left out; 1 is the token with which texts begin.
        nodes: Share of influence that nodes are kept for.
        edges: Share of it that edges are kept for.
        text: A UTF-8 file of text. What features of the graph fire on in it names them, and is written beside the
            graph, as features/<number>.json; without it features have numbers alone.
        chat: Whether the prompt is said by a user, in the model's chat template.
        out: Folder for the graph.
    """
    import jax.numpy as jnp

    from interp_jax import graphs, models
    from interp_jax.cli import output, subject

    output.check_writable(out)
    some = _load(transcoders)
    loaded, tokenizer = subject.open_model(model)
    said: Any = [{"role": "user", "content": prompt}] if chat else prompt
    tokens = jnp.asarray(tokenizer.encode(said, chat=True if chat else None), jnp.int32)
    asked = {"targets": targets or None, "tokenizer": tokenizer, "n_features": features, "n_first": first}
    whole = graphs.attribution_graph(models.forward, loaded, some, tokens, **asked)
    pruned = whole.prune(nodes, edges)
    options = {"scan": Path(model).name, "node_threshold": nodes}
    if text is not None:
        pruned, folder = _with_details(model, loaded, tokenizer, some, pruned, text, out)
        options["feature_details"] = {"feature_json_base_url": folder}
    _print(whole, pruned)
    slug = re.sub(r"\W+", "-", prompt).strip("-")[:40] or "graph"
    print(f"written: {pruned.to_json(out / f'{slug}.json', **options)}")


def _with_details(
    name: str, model: Any, tokenizer: Any, transcoders: Any, graph: "Graph", text: Path, out: Path
) -> tuple["Graph", str]:
    """The graph with its features named by what they fire on, and the folder in which viewers find them."""
    from interp_jax import graphs
    from interp_jax.cli import feature_details, subject

    nodes = graph.find("feature")
    places = {int(node): (int(graph.layer[node]), int(graph.index[node])) for node in nodes}
    some = subject.Subject(name, model, tokenizer, {}, "", model.config.d_model)
    made = feature_details.collect(some, transcoders, sorted(set(places.values())), text)
    folder = graphs.write_features({place: one for place, (_, one) in made.items()}, out / "features")
    return graph.named({node: made[place][0] for node, place in places.items() if place in made}), str(folder)


def _load(path: str) -> Any:
    """A cross-layer transcoder of a folder, or the transcoders of all layers of a folder or of a shipped set."""
    from interp_jax import dictionaries

    folder = Path(path)
    if folder.is_dir() and not any(folder.glob("layer_*")):
        return dictionaries.load(folder)
    return dictionaries.load_layers(path)


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
        about = f"  {pruned.names[node]}" if node in pruned.names else ""
        print(f"{name:>14}  {token!r:>14}  {pruned.activation[node]:10.3f}  {influence[node]:9.3f}{about}")
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
