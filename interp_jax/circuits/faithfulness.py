"""Whether a circuit does the model's work: faithfulness and minimality, with all that is outside ablated.

    m(K) = metric of the model in which all that is outside K is ablated (heads and MLPs, or edges between them)
    M everything, C the circuit
    faithfulness (m(C) - m(0)) / (m(M) - m(0))
    minimality of v in C: (m(C) - m(C \\ v)) / (m(M) - m(0))

Wang et al. 2022, "Interpretability in the wild" (IOI), arXiv:2211.00593; shares: Marks et al. 2024, arXiv:2403.19647.
Metrics are means over examples before any ratio is taken.
Caveat: the ablation is part of what is measured (Miller et al. 2024, arXiv:2407.08734): say which. Biases, norms and
embeddings are in every circuit.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.core import Tracer
import jax.numpy as jnp

from interp_jax.circuits.circuit import Circuit, Members
from interp_jax.core import capture, intervene, sites, split_address, transform
from interp_jax.runs import at_once, check_counts, check_pair, in_chunks, per_example

Ablation = str | Mapping[str, Any]


class Faithfulness(NamedTuple):
    """How much of the model's work circuits do, in float32.

    share: `[*circuit]`, the share of the model's work that each does; nan where the model does none.
    circuit: `[*circuit]`, the metric of each circuit.
    model, empty: `[]`, the metric of the whole model and that of the empty circuit.
    """

    share: Array
    circuit: Array
    model: Array
    empty: Array


class Minimality(NamedTuple):
    """How much of the model's work is lost without each member of a circuit, in float32.

    heads, mlps: `[layer head]` and `[layer]`, the share that is lost without each; 0 outside the circuit.
    model, empty: `[]`, as in `Faithfulness`.
    """

    heads: Array
    mlps: Array
    model: Array
    empty: Array


class Request(NamedTuple):
    """What a function of this room was asked for.

    name: of the function, for its errors.
    ablation: "resample", "mean", "zero", or "values" where a mapping was given.
    chunk: how many circuits run at once; None: so many that 64 sequences do.
    n: how many steps a greedy removal takes.
    """

    name: str
    ablation: str
    chunk: int | None
    n: int = 0


def faithfulness(
    f: Callable[..., Any], metric: Callable[[Any], Array], ablation: Ablation = "resample", *, chunk: int | None = None
) -> Callable[..., Faithfulness]:
    """Measures the share of the metric that circuits keep.

    Args:
      f, metric: as in `activation_patch`.
      ablation: what stands in the place of what is outside: "resample" (the corrupted run's value), "mean" (its mean
        over the batch, place by place: prompts of one template, as in Wang et al. 2022, without padding), "zero", or
        a mapping of the circuit's `sites` to values, as `capture` returns them.
      chunk: circuits that run at once; by default so many that 64 sequences do.

    Returns:
      `g(model, clean, corrupted, circuit) -> Faithfulness`, one compiled call: tokens `[batch position]`, a `Circuit`
      or an `EdgeCircuit` of any leading axes, all of which are kept.

    Raises:
      ValueError: clean and corrupted of different shapes; an unknown ablation; a circuit of another shape than the
        model's heads and MLPs; the model and the empty circuit have one metric (under `jit`: nan); chunk below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import circuits, models
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1, 7]
      >>> nested = circuits.Circuit.top(jnp.ones((4, 4)), jnp.arange(4.0), jnp.array([1, 20]))
      >>> g = circuits.faithfulness(models.forward, top, "zero")
      >>> found = g(model, jnp.array([[1, 5]]), jnp.array([[1, 9]]), nested)
      >>> found.share.shape, round(found.share[1].item(), 4)
      ((2,), 1.0)
    """
    return transformed(f, metric, ablation, _faithfulness, asked("faithfulness", ablation, chunk))


def minimality(
    f: Callable[..., Any], metric: Callable[[Any], Array], ablation: Ablation = "resample", *, chunk: int | None = None
) -> Callable[..., Minimality]:
    """Measures the share of the model's work that is lost when one member of a circuit is ablated, too.

    Wang et al. 2022 ask it of a circuit less a part K, since members make up for one another: give that as circuit.

    Args:
      f, metric, ablation, chunk: as in `faithfulness`.

    Returns:
      `g(model, clean, corrupted, circuit) -> Minimality`, of one circuit without leading axes.

    Raises:
      ValueError: as `faithfulness`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import circuits, models
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1, 7]
      >>> circuit = circuits.Circuit.top(jnp.ones((4, 4)), jnp.arange(4.0), 3)
      >>> g = circuits.minimality(models.forward, top)
      >>> found = g(model, jnp.array([[1, 5]]), jnp.array([[1, 9]]), circuit)
      >>> found.heads.shape, int((found.mlps == 0).sum())
      ((4, 4), 2)
    """
    return transformed(f, metric, ablation, _minimality, asked("minimality", ablation, chunk))


def asked(name: str, ablation: Ablation, chunk: int | None, n: int = 0) -> Request:
    """Checks a request. Raises ValueError for an unknown ablation or a chunk below 1."""
    given = not isinstance(ablation, str)
    if not given and ablation not in ("resample", "mean", "zero"):
        raise ValueError(
            f"{name}: ablation={ablation!r} is none of 'resample', 'mean', 'zero', nor a mapping of values"
        )
    check_counts(chunk=chunk)
    return Request(name, "values" if given else str(ablation), chunk, n)


def transformed(f: Any, metric: Any, ablation: Ablation, run: Any, request: Request) -> Callable[..., Any]:
    """The function of `(model, clean, corrupted, circuit, ...)` that a method returns, by `run`.

    It raises ValueError where shares have no scale, unless it is traced.
    """
    values = None if isinstance(ablation, str) else {name: jnp.asarray(value) for name, value in ablation.items()}
    measure = transform(run, request, (f, metric, values))

    def g(*args: Any, **kwargs: Any) -> Any:
        found = measure(*args, **kwargs)
        if isinstance(found, Faithfulness | Minimality):
            traced = isinstance(found.model, Tracer) or isinstance(found.empty, Tracer)
            if not traced and found.model == found.empty:
                raise ValueError(
                    f"{request.name}: the whole model and the empty circuit both score {float(found.model):.4g}, so "
                    "there is no share of it: choose another metric or ablation"
                )
        return found

    return g


def _faithfulness(request: Request, arrays: Any, *args: Any, **kwargs: Any) -> Faithfulness:
    *given, circuit = args
    score, model, empty = measured(request, arrays, given, circuit, kwargs)
    scores = score(circuit)
    return Faithfulness(_share(scores - empty, model, empty), scores, model, empty)


def _minimality(request: Request, arrays: Any, *args: Any, **kwargs: Any) -> Minimality:
    *given, circuit = args
    score, model, empty = measured(request, arrays, given, circuit, kwargs)
    check_single(request.name, circuit)
    lost = score(circuit) - score(circuit & ~circuit.singles())
    n_heads = circuit.heads.size
    heads = jnp.where(circuit.heads, lost[:n_heads].reshape(circuit.heads.shape), 0)
    mlps = jnp.where(circuit.mlps, lost[n_heads:], 0)
    return Minimality(_share(heads, model, empty), _share(mlps, model, empty), model, empty)


def measured(
    request: Request, arrays: Any, args: Any, circuit: Any, kwargs: Any
) -> tuple[Callable[[Any], Array], Array, Array]:
    """A function from circuits `[*axes]` to their mean metrics `[*axes]`, and the metrics of all and of nothing."""
    f, metric, given = arrays
    *before, clean, corrupted = args
    check_pair(request.name, clean, corrupted)
    known = sites(f, *before, clean, **kwargs)
    if not isinstance(circuit, Members):
        raise ValueError(f"{request.name}: the circuit must be a circuits.Circuit or a circuits.EdgeCircuit")
    circuit.check(request.name, known)
    if request.ablation == "zero":
        values = dict.fromkeys(circuit.sites, jnp.zeros(()))
    elif request.ablation == "values":
        values = given
        if set(values) != set(circuit.sites):
            wanted, got = (", ".join(map(repr, names)) for names in (circuit.sites, values))
            raise ValueError(f"{request.name}: an ablation by values wants those of {wanted}, not of {got}")
    else:
        values = capture(f, circuit.sites, output=False)(*before, corrupted, **kwargs)
        if request.ablation == "mean" and jnp.ndim(corrupted) > 1:
            values = {name: _mean(name, value) for name, value in values.items()}
    examples = jnp.shape(clean)[:-1]

    def one(circuit: Members) -> Array:
        return per_example(metric(intervene(f, circuit.edits(values))(*before, clean, **kwargs)), examples).mean()

    def score(circuits: Members) -> Array:
        axes = circuits.axes
        flat = jax.tree.map(lambda mask: mask.reshape(-1, *mask.shape[len(axes) :]), circuits)
        return in_chunks(one, flat, at_once(request.chunk, examples)).reshape(axes)

    nothing = jax.tree.map(lambda mask: jnp.zeros(mask.shape[len(circuit.axes) :], bool), circuit)
    return score, per_example(metric(f(*before, clean, **kwargs)), examples).mean(), one(nothing)


def _mean(name: str, value: Array) -> Array:
    """The mean over the batch, which a captured stack of layers has as its second axis."""
    return value.mean(int(split_address(name)[1] is None), keepdims=True, dtype=jnp.float32)


def _share(change: Array, model: Array, empty: Array) -> Array:
    return change / jnp.where(model == empty, jnp.nan, model - empty)


def check_single(name: str, circuit: Members) -> None:
    """Raises ValueError where there is more than one circuit, or it is not of heads and MLPs."""
    if not isinstance(circuit, Circuit):
        raise ValueError(f"{name}: goes through heads and MLPs: wants a circuits.Circuit")
    if circuit.axes:
        raise ValueError(f"{name}: wants one circuit, got {list(circuit.axes)} of them: use jax.vmap")
