"""Is the circuit that a method finds the one that is there? Models compiled from programs, whose circuits are known.

RASP programs (Weiss et al. 2021, https://arxiv.org/abs/2106.06981) are compiled to transformers as by tracr (Lindner et
al. 2023, https://arxiv.org/abs/2301.05062). One model computes all of them, with shared MLPs, random heads and neurons
beside them that leak a little into the stream, and is asked for one. Pairs of inputs have different answers at the
position asked. Heads and MLPs, and queries and keys, are ranked by patching, clean into corrupted and back, attribution
patching and AtP* (https://arxiv.org/abs/2403.00745); edges by patching each, EAP (https://arxiv.org/abs/2310.10348) and
EAP-IG (https://arxiv.org/abs/2403.17806); and at random. The truth: what carries a value that depends on the tokens.

    python experiments/compiled_circuits.py [--seeds 0 1 2] [--out DIR]

Some three minutes on two cores. It prints, for heads and MLPs, for queries and keys, and for edges, the area under the
ROC curve, and after the stroke the share of the circuit among as many as it has members (precision and recall at once),
mean and spread over seeds, each with other random weights, places of heads and pairs.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_lowercase

from compiled_programs import PROGRAMS, pairs
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs
from sklearn.metrics import roc_auc_score

from interp_jax import circuits, config, metrics, models, patching
from interp_jax.models import rasp
from interp_jax.nodes import connected

NODES = {"blocks.attn.z": ("layer", "head"), "blocks.mlp_out": ("layer",)}
LOOKS = {f"blocks.attn.{kind}": ("layer", "position", "head") for kind in "qk"}
KINDS = ("nodes", "queries and keys", "edges")
COLORS = {"patching": "#1f3a5f", "edge patching": "#1f3a5f", "and back": "#4a90c2", "AtP": "#d9822b", "EAP": "#d9822b"}
COLORS |= {"random": "#999999"}
BETTER = "#b03a2e"  # AtP* and EAP-IG
STORY = (
    "A threshold or a softmax that is saturated has a slope of 0, which hides from gradients all that stands before "
    "it; patching takes no slopes, and EAP-IG's runs on the way from one input to the other may cross it."
)


@dataclass(frozen=True)
class Compiled:
    programs: tuple[str, ...]
    length: int  # of inputs
    n_letters: int
    decoys: int  # random heads of each layer
    leak: float
    n: int  # pairs of inputs
    steps: int  # of EAP-IG
    seeds: tuple[int, ...]
    out: Path


def of_sites(sites: dict[str, tuple[str, ...]], f, metric, model, clean, corrupted) -> dict[str, np.ndarray]:
    """The size of what each method says of each part of a model: the means over pairs, summed over positions."""

    def sizes(method, base, *pair) -> np.ndarray:
        found = []
        for site, over in sites.items():
            effects = np.asarray(method(f, metric, site, ("batch", *over))(model, *pair))
            size = np.abs(effects - base.reshape(-1, *[1] * len(over))).mean(0)
            found.append(np.ravel(size.sum(over.index("position")) if "position" in over else size))
        return np.concatenate(found)

    there, here = (np.asarray(metric(f(model, tokens))) for tokens in (clean, corrupted))
    return {
        "patching": sizes(patching.activation_patch, here, clean, corrupted),
        "and back": sizes(patching.activation_patch, there, corrupted, clean),
        "AtP": sizes(patching.attribution_patch, 0 * here, clean, corrupted),
        "AtP*": sizes(patching.atp_star, 0 * here, clean, corrupted),
    }


def of_edges(cfg: Compiled, f, metric, model, clean, corrupted) -> tuple[dict[str, np.ndarray], patching.Edges]:
    """The size of what each method says of each edge `[sender receiver]`, and the edges themselves."""
    edges = patching.edge_attribution(f, metric)(model, clean, corrupted)
    integrated = patching.edge_attribution(f, metric, steps=cfg.steps)(model, clean, corrupted)
    there = connected(edges.senders, edges.receivers)
    places = np.argwhere(there)
    kept = np.ones((len(places), *there.shape), bool)
    kept[np.arange(len(places)), *places.T] = False
    whole = metric(f(model, clean))
    circuit = circuits.EdgeCircuit(jnp.asarray(kept), edges.senders, edges.receivers)
    change = circuits.faithfulness(f, lambda out: jnp.abs(metric(out) - whole))(model, clean, corrupted, circuit)
    patched = np.zeros(there.shape)
    patched[there] = np.asarray(change.circuit)
    sizes = {"edge patching": patched, "EAP": np.abs(edges.scores), f"EAP-IG {cfg.steps}": np.abs(integrated.scores)}
    return {method: np.asarray(size)[there] for method, size in sizes.items()}, edges


def judged(found: dict[str, np.ndarray], truth: np.ndarray, rng: np.random.Generator) -> dict[str, list[float]]:
    """Of each method and of chance: the area under the ROC curve, and the share of the truth among as many."""
    scores = {}
    for method, sizes in {**found, "random": rng.random(len(truth))}.items():
        first = np.lexsort((rng.random(len(truth)), -sizes))[: truth.sum()]  # equals in a random order
        scores[method] = [float(roc_auc_score(truth, sizes)), float(truth[first].mean())]
    return scores


def study(cfg: Compiled, seed: int, begin) -> dict[str, dict]:
    """Every program asked of one model: how well each method ranks its nodes and its edges."""
    rng, letters = np.random.default_rng(seed), ascii_lowercase[: cfg.n_letters]
    found = {}
    for name in cfg.programs:
        begin(name)
        compiled = rasp.compile(
            PROGRAMS[name],
            letters,
            cfg.length,
            beside=tuple(PROGRAMS[other] for other in cfg.programs),
            decoys=cfg.decoys,
            leak=cfg.leak,
            key=jax.random.key(seed),
        )
        clean, corrupted, at, answers, distractors = pairs(name, compiled, cfg.n, cfg.length, rng)
        f = partial(models.forward, logits_at=at)
        args = f, metrics.logit_diff(answers, distractors), compiled.model, clean, corrupted
        right = [metrics.accuracy(x)(f(compiled.model, y)) for x, y in ((answers, clean), (distractors, corrupted))]
        by_edge, edges = of_edges(cfg, *args)
        senders, receivers, there = edges.senders, edges.receivers, connected(edges.senders, edges.receivers)
        read = {receiver for _, receiver in compiled.varying}
        truth = {
            "nodes": [sender in compiled.nodes for sender in senders[1:]],  # heads, then MLPs
            "queries and keys": [receiver in read for receiver in receivers if receiver[0] in "qk"],
            "edges": np.array([[(s, r) in compiled.varying for r in receivers] for s in senders])[there],
        }
        sizes = {"nodes": of_sites(NODES, *args), "queries and keys": of_sites(LOOKS, *args), "edges": by_edge}
        found[name] = {
            kind: {"members": [np.sum(known), len(known)]} | judged(sizes[kind], np.array(known), rng)
            for kind, known in truth.items()
            if np.any(known)  # a program may look at the same places whatever the tokens
        } | {"exact": float(np.mean(right))}
    return found


def cases(numbers: dict[str, dict], kind: str) -> dict[str, dict]:
    """By program, with its numbers of members, the scores `[seed, area or share]` of each method."""
    found = {name: each[kind] for name, each in numbers.items() if kind in each}
    titles = {name: "{} ({} of {})".format(name, *each["members"][0]) for name, each in found.items()}
    return {titles[name]: {m: x for m, x in each.items() if m != "members"} for name, each in found.items()}


def table(numbers: dict[str, dict], kind: str) -> str:
    """A row for each program, a column for each method."""
    rows = []
    for name, scores in cases(numbers, kind).items():
        rows.append({kind: name} | {m: " / ".join(runs.cell(v) for v in np.transpose(x)) for m, x in scores.items()})
    return runs.table(rows)


def draw(numbers: dict[str, dict]) -> go.Figure:
    """A panel for each kind of member: for each program the area under the ROC curve of each method."""
    titles = [f"Area under the ROC curve, {kind}" for kind in KINDS]
    figure = make_subplots(rows=len(KINDS), cols=1, subplot_titles=titles, vertical_spacing=0.1)
    for row, kind in enumerate(KINDS, 1):
        scored = cases(numbers, kind)
        for method in next(iter(scored.values()), {}):
            areas = np.array([scores[method] for scores in scored.values()])[..., 0]
            bars = {
                "y": areas.mean(1),
                "error_y": {"array": runs.spread(areas, 1)},
                "marker": {"color": COLORS.get(method, BETTER)},
            }
            figure.add_bar(x=list(scored), name=method, legend=f"legend{row}", row=row, col=1, **bars)
        figure.update_layout({f"legend{row}": {"y": 1.0 - 0.367 * (row - 1)}})
    return figure.update_yaxes(range=[0, 1.05]).update_layout(title="Compiled circuits, found again", height=1000)


def main(cfg: Compiled) -> dict:
    """What each method finds, by program, kind of member and method, with the seed as the first axis."""
    strange = [name for name in cfg.programs if name not in PROGRAMS]
    if strange:
        raise SystemExit(f"programs: no program {strange[0]!r}; there are {', '.join(PROGRAMS)}")

    def keep(found: dict) -> None:
        runs.write("compiled_circuits", cfg, {"programs": found})

    numbers = runs.each(cfg.seeds, len(cfg.programs), "compiled circuits, seed", partial(study, cfg), keep)
    exact = np.mean([found["exact"] for found in numbers.values()])
    about = (
        f"{cfg.n} pairs, seeds {list(cfg.seeds)}, mean ± spread over seeds. The models say what the programs say of "
        f"{exact:.1%} of the inputs. Area under the ROC curve / share of the circuit among as many as it has members."
    )
    text = about, *(table(numbers, kind) for kind in KINDS), STORY
    runs.finish("compiled_circuits", cfg, {"programs": numbers}, draw(numbers), *text)
    return numbers


if __name__ == "__main__":
    main(config.load(Compiled, "configs/compiled_circuits.toml"))
