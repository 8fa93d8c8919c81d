"""Every score of every head on indirect objects, for `ioi.py`: what it does, to whom, and where it looks."""

import jax
import numpy as np

import interp_jax as ij
from interp_jax import data, lens, models, patching

HEADS, OVER, PATTERN = "blocks.attn.z", ("layer", "head"), "blocks.attn.pattern"
LOOKS = {f"{query}>{key}": (query, key, 0) for query, key in (("end", "io"), ("end", "s2"), ("s2", "io"), ("s2", "s1"))}
LOOKS["s2>s1+1"] = ("s2", "s1", 1)


def heads(model, task: data.tasks.Task, f, metric, edges: patching.Edges | None, begin) -> dict[str, jax.Array]:
    """Every score of every head, `[layer head]`."""
    begin("where heads look, and heads by patching")
    pairs, weights = (task.clean, task.corrupted), models.weights(model)
    _, acts = ij.capture(f, [*lens.COMPONENTS, "ln_final.scale", PATTERN])(model, task.clean)
    found = {"patching": patching.activation_patch(f, metric, HEADS, OVER)(model, *pairs)}
    if edges is not None:  # and so what heads write adds up
        last = {name: x[..., -1, :] for name, x in lens.components(weights, acts).items()}
        reads = (lens.logit_directions, lens.logit_biases)
        directions, bias = (read(weights, task.answers) - read(weights, task.distractors) for read in reads)
        direct = lens.direct_attribution(weights, last, acts["ln_final.scale"][:, -1], directions, bias=bias)
        found["EAP-IG"] = edges.sent("head").reshape(acts[PATTERN].shape[:3:2])
        found["direct"] = direct["heads"].mean(-1)
    begin("paths to the logits")
    found["to logits"] = patching.path_patch(f, metric, HEADS, "logits", OVER)(model, *pairs)
    layer, head = np.unravel_index(np.argmax(found["to logits"]), found["to logits"].shape)
    for kind in "qv":
        begin(f"paths to {kind} {layer}.{head}")
        found[f"to its {kind}"] = patching.path_patch(f, metric, HEADS, f"{kind} {layer}.{head}", OVER)(model, *pairs)
    rows, column = np.arange(len(task.last)), task.columns
    for name, (query, key, after) in LOOKS.items():
        found[name] = acts[PATTERN][:, rows, :, column[query], column[key] + after].mean(0)
    return found
