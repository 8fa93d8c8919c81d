"""`interp-jax why`: why a model says one token rather than another, as a table and a page that looks into each node."""

from collections.abc import Callable
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_jax.explain import Node, Why

PROMPT = "when Mary and John went to the park , John gave a ring to"
WRITTEN = 8  # tokens that are shown of what a node writes, either way
NEURONS, HEADS = "blocks.mlp.post", "blocks.attn.pattern"  # how records call neurons and heads of every layer


def why(
    model: str = "microworld",
    prompt: str = PROMPT,
    token: str = " Mary",
    rather: str = " John",
    position: int | None = None,
    dictionary: tuple[Path, ...] = (),
    records: Path | None = None,
    n: int = 16,
    out: Path = Path("why"),
) -> None:
    """Ask why a model says this token rather than that one: which heads, neurons and features, and what made them.

    Args:
        model: A shipped model (microworld), a local Hugging Face folder, a GGUF file, or a hub id.
        prompt: The text.
        token: What is said, one token, as " Mary".
        rather: What is not, one token, as " John".
        position: Where, a token of the prompt counted from 0; by default its last.
        dictionary: Folders of dictionaries, whose features take the place of what they reconstruct.
        records: Folder of records and explanations (explanations.jsonl), which are shown beside the nodes.
        n: Nodes to look into, of each of the three scores.
        out: Folder for the page and the numbers.
    """
    import numpy as np

    from interp_jax import explain, models, report
    from interp_jax.cli import output, subject
    from interp_jax.progress import Progress

    output.check_writable(out)
    if n < 1:
        raise ValueError(f"why: --n {n}: give 1 or more")
    loaded, tokenizer = subject.open_model(model)
    dictionaries = _dictionaries(dictionary)
    words, fires = _words(records), _fires(records, tokenizer)
    tokens, _, _ = models.tokenize(tokenizer, [prompt])
    weights, row = models.weights(loaded), tokens[0]
    told = {"dictionaries": dictionaries, "tokenizer": tokenizer}
    ask = explain.why(models.forward, token, rather, position=position, **told)
    found = ask(loaded, weights, row)
    print(found)
    said = ", ".join(f"{word!r} {value:.2f}" for word, value in found.likeliest())
    print(f"\nit says {said}")

    chosen = _chosen(found, n)
    free = [node for node in chosen if not node.kind.endswith("bias")]
    with Progress("looking into nodes", len(chosen) + 1) as progress:
        progress.begin("ablations")
        several = explain.ablations(models.forward, free, token, rather, position=position, **told)
        runs = several(loaded, weights, row)
        without = {node: runs[i] for i, node in enumerate(free)}
        raised = _written(loaded, tokenizer, row, chosen, dictionaries)
        looks = _looks(loaded, row) if any(node.kind == "head" for node in chosen) else np.zeros(0)
        views = []
        for node in chosen:
            progress.begin(str(node))
            unit = _unit(node, loaded)
            view: dict[str, Any] = {
                "without": without.get(node),
                "words": words.get(unit, ""),
                "fires_on": fires(*unit),
            }
            if node.unit is not None:
                toward = (token, rather) if node.kind == "head" else None
                active = explain.why_active(models.forward, node, toward=toward, position=position, **told)
                view["upstream"] = active(loaded, weights, row)
            if node.kind == "head":
                view["looks"] = looks[node.layer, node.unit, node.position]
                key = 1 + int(view["looks"][1:].argmax()) if node.position else 0  # not at the first, where heads rest
                attends = explain.why_attends(
                    models.forward, node.layer or 0, node.unit or 0, node.position, key, **told
                )
                view["attends"] = attends(loaded, weights, row)
            views.append(report.NodeView(node, **view, **raised[node]))
    facts = {
        "model": Path(model).name,
        "difference": f"{float(found.value):+.2f}",
        "nodes": f"{len(chosen)} looked into",
    }
    page = report.why_page(found, views, title=f"{token.strip()} rather than {rather.strip()}", facts=facts)
    output.write(out / "index.html", page)
    output.write(out / "why.json", json.dumps(_numbers(found, without, model, prompt), indent=2) + "\n")
    print(f"the page: {out / 'index.html'}")


def _chosen(found: "Why", n: int) -> "list[Node]":
    """The nodes with the largest scores. By what they write only those where the question is, since elsewhere what is
    written most is written at the first token, for no head to find anything else there."""
    some = [row.node for by in ("direct", "gradient") for row in found.top(n, by=by)]
    here = [row.node for row in found.top(50 * n, by="magnitude") if row.node.position == int(found.position)]
    return list(dict.fromkeys([*some, *here[: max(1, n // 4)]]))


def _dictionaries(folders: tuple[Path, ...]) -> dict[str, Any]:
    """The dictionaries by the address of what they stand in for."""
    from interp_jax import dictionaries

    found: dict[str, Any] = {}
    for folder in folders:
        one = dictionaries.load(folder)
        site = one.sites[1] if isinstance(one.sites, tuple) else one.sites
        if site is None:
            raise ValueError(
                f"--dictionary {folder}: it does not say at which site it was trained; save it with sites="
            )
        if site in found:
            raise ValueError(f"--dictionary {folder}: another one stands for {site}; give one of them")
        found[site] = one
    return found


def _fires(folder: Path | None, tokenizer: Any) -> "Callable[[str, int], tuple[tuple[str, float], ...]]":
    """What a unit of records fires on: the tokens, and how much of its activation each has."""
    from interp_jax import explain

    known = {} if folder is None or not (folder / "card.json").exists() else explain.load_records(folder)

    def fires(name: str, unit: int) -> tuple[tuple[str, float], ...]:
        if name not in known or not known[name].counts[unit]:
            return ()
        tokens, counts, means = known[name].fired_on(unit)
        shares = counts * means / known[name].sums[unit]
        order = (-shares).argsort()[:WRITTEN]
        return tuple(zip(tokenizer.to_str_tokens(tokens[order]), shares[order].tolist(), strict=True))

    return fires


def _words(folder: Path | None) -> dict[tuple[str, int], str]:
    """Explanations by the name of the records and the number of the unit."""
    from interp_jax import explain

    if folder is None:
        return {}
    if not any((folder / name).exists() for name in ("card.json", "explanations.jsonl")):
        raise ValueError(f"--records {folder}: has neither records nor explanations.jsonl")
    return {(one.records, one.unit): one.text for one in explain.load_explanations(folder).values()}


def _unit(node: "Node", model: Any) -> tuple[str, int]:
    """How records call a node."""
    config, unit = model.config, node.unit or 0
    if node.kind == "head":
        return HEADS, (node.layer or 0) * config.n_heads + unit
    if node.kind == "neuron":
        return NEURONS, (node.layer or 0) * config.d_mlp + unit
    return f"blocks.{node.layer}.{node.kind.split()[0]}", unit


def _looks(model: Any, row: Any) -> Any:
    """Where heads look, `[layer head query key]`."""
    import numpy as np

    import interp_jax as ij
    from interp_jax import models

    pattern = "blocks.attn.pattern"
    return np.asarray(ij.capture(models.forward, pattern, output=False)(model, row)[pattern])


def _written(
    model: Any, tokenizer: Any, row: Any, nodes: "list[Node]", dictionaries: dict[str, Any]
) -> "dict[Node, dict[str, Any]]":
    """What nodes write, as the tokens whose logits that raises and lowers directly, the final norm's scale held."""
    import numpy as np

    import interp_jax as ij
    from interp_jax import explain, models
    from interp_jax.cli import subject

    weights = models.weights(model)
    vectors = np.array(explain.written(models.forward, nodes, dictionaries=dictionaries)(model, weights, row))
    if "ln_final_w" in weights:
        scale = ij.capture(models.forward, "ln_final.scale", output=False)(model, row)["ln_final.scale"]
        vectors /= np.asarray(scale)[[node.position for node in nodes]]
    effects = subject.logit_effects(subject.Subject("", model, tokenizer, {}, "", vectors.shape[-1]), vectors)
    if effects is None:
        return {node: {} for node in nodes}
    found = {}
    for node, effect in zip(nodes, effects, strict=True):
        order = np.argsort(effect)
        ends = {"raised": order[::-1][:WRITTEN], "lowered": order[:WRITTEN]}
        found[node] = {
            name: tuple(zip(tokenizer.to_str_tokens(ids), effect[ids].tolist(), strict=True))
            for name, ids in ends.items()
        }
    return found


def _numbers(found: "Why", without: "dict[Node, Any]", model: str, prompt: str) -> dict[str, Any]:
    nodes = [{"node": str(node), **found[node].scores, "without": float(run.value)} for node, run in without.items()]
    about = {"model": model, "prompt": prompt, "question": found.title, "position": int(found.position)}
    return about | {"value": float(found.value), "constants": float(found.constants["direct"]), "nodes": nodes}
