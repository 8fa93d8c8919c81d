"""What every head does with indirect objects, for `ioi.py`: what it is worth, whom it tells, and where it looks.

Every score is an array `[layer head]`. The order is that of the paper: first which heads matter, then which of them
write the answer, then who tells those, and what each looks at while it does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import data, lens, models, patching

Begin = Callable[[str], None]  # tells that a step begins
Scores = dict[str, jax.Array]

HEADS, PATTERN = "blocks.attn.z", "blocks.attn.pattern"
OVER = ("layer", "head")


@dataclass(frozen=True)
class Problem:
    """A model before prompts whose twins give the answer to the other name."""

    model: models.Decoder
    task: data.tasks.Task
    f: Callable[..., jax.Array]  # (model, tokens) -> logits after the last word
    metric: Callable[[jax.Array], jax.Array]  # of logits: 1 as in the clean prompts, 0 as in the corrupted ones

    @property
    def args(self) -> tuple[Any, ...]:
        """What a patching method's function takes: the model, clean and corrupted tokens."""
        return self.model, self.task.clean, self.task.corrupted


def score_heads(problem: Problem, edges: patching.Edges | None, begin: Begin) -> Scores:
    """Every score by name; those that take edges, or outputs of heads that add up, only where edges are given."""
    begin("where heads look, and heads by patching")
    sites = [*lens.COMPONENTS, "ln_final.scale", PATTERN]
    _, acts = ij.capture(problem.f, sites)(problem.model, problem.task.clean)
    found = {"patching": patching.activation_patch(problem.f, problem.metric, HEADS, OVER)(*problem.args)}
    if edges is not None:
        found["EAP-IG"] = edges.sent("head").reshape(found["patching"].shape)
        found["direct"] = direct_attribution(problem, acts)
    found |= paths(problem, begin)
    return found | looks(problem.task, acts[PATTERN])


def direct_attribution(problem: Problem, acts: dict[str, jax.Array]) -> jax.Array:
    """What a head itself writes towards the one name and away from the other, in logits."""
    weights, task = models.weights(problem.model), problem.task
    at_last = {name: x[..., -1, :] for name, x in lens.components(weights, acts).items()}
    directions = lens.logit_directions(weights, task.answers) - lens.logit_directions(weights, task.distractors)
    bias = lens.logit_biases(weights, task.answers) - lens.logit_biases(weights, task.distractors)
    scale = acts["ln_final.scale"][:, -1]
    return lens.direct_attribution(weights, at_last, scale, directions, bias=bias)["heads"].mean(-1)


def paths(problem: Problem, begin: Begin) -> Scores:
    """What a head brings back along the path to the logits alone; then along those into the strongest such head.

    A path into its queries tells the head where to look, as S-inhibition heads do; one into its values tells it what to
    copy.
    """
    f, metric = problem.f, problem.metric
    begin("paths to the logits")
    to_logits = patching.path_patch(f, metric, HEADS, "logits", OVER)(*problem.args)
    found = {"to logits": to_logits}
    layer, head = np.unravel_index(np.argmax(to_logits), to_logits.shape)
    for kind in ("q", "v"):
        receiver = f"{kind} {layer}.{head}"
        begin(f"paths to {receiver}")
        found[f"to its {kind}"] = patching.path_patch(f, metric, HEADS, receiver, OVER)(*problem.args)
    return found


def looks(task: data.tasks.Task, pattern: jax.Array) -> Scores:
    """How much of its attention each head gives, from one word of the prompt to another.

    Name movers look from the end at the indirect object, S-inhibition heads at the second subject; from there,
    duplicate-token heads look at the first subject, and induction heads at the word after it.
    """
    column = task.columns
    looked_at = {
        "end>io": (column["end"], column["io"]),
        "end>s2": (column["end"], column["s2"]),
        "s2>io": (column["s2"], column["io"]),
        "s2>s1": (column["s2"], column["s1"]),
        "s2>s1+1": (column["s2"], column["s1"] + 1),
    }
    prompts = jnp.arange(len(task.clean))
    return {name: pattern[:, prompts, :, query, key].mean(0) for name, (query, key) in looked_at.items()}
