"""The compiler: a program to the weights of a decoder without norms, each value of each expression a direction.

    head      score(query, key) = sharpness * (selected or not); BOS has half of it, so that it is looked at where
              nothing is selected, and gives the default; where positions are counted all of it: it gets 1 / (1 + width)
    map       one neuron for each combination of values, relu(x_i + y_j - 1), writes the value of the function
    number    two neurons for each threshold between values of 1 / (1 + width), or of 1 + fraction, write the value

Lindner et al. 2023, "Tracr: compiled transformers as a laboratory for interpretability", arXiv:2301.05062.
Caveat: sharp attention and thresholds are saturated: their slopes are 0, which methods by gradients do not survive.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder
from interp_jax.models.params import paths
from interp_jax.models.rasp.language import (
    Aggregate,
    Expression,
    Fraction,
    Map,
    SelectorWidth,
    check_expressions,
    indices,
    tokens,
)
from interp_jax.models.rasp.plan import Edge, Looking, Plan, plan

BOS = "BOS"
Weights = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program as a model, and the circuit that it is.

    Attributes:
      model: a `Decoder`. Its tokens begin with BOS; its logits at a token are largest at the program's value there.
      vocabulary: what each token id stands for: BOS, the alphabet, what else it or those beside it can say.
      alphabet: the tokens that inputs may have.
      edges: every edge (sender, receiver) that the program's values go along, named as in `interp_jax.nodes`: "embed",
        "head 0.1", "mlp 1" to "q 1.0", "k 1.0", "v 1.0", "mlp 1", "logits". What BOS gives is constant, and no edge.
      varying: those of them whose values differ between inputs of one length: what patching can find.
    """

    model: Decoder
    vocabulary: tuple[Hashable, ...]
    alphabet: tuple[Hashable, ...]
    edges: tuple[Edge, ...]
    varying: tuple[Edge, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The heads and MLPs of the circuit whose values tokens change, such as "head 0.1" and "mlp 1"."""
        return tuple(dict.fromkeys(sender for sender, _ in self.varying if sender != "embed"))

    def encode(self, inputs: Sequence[Hashable]) -> list[int]:
        """The token ids of an input, BOS first.

        Raises:
          ValueError: a token outside the alphabet, or an input that is too long.
        """
        if strange := [value for value in inputs if value not in self.alphabet]:
            raise ValueError(f"Compiled.encode: {strange[0]!r} is none of {', '.join(map(repr, self.alphabet))}")
        if len(inputs) >= self.model.config.n_ctx:
            raise ValueError(
                f"Compiled.encode: {len(inputs)} tokens, where the program was compiled for at most "
                f"{self.model.config.n_ctx - 1}; compile it with a greater length"
            )
        return [0, *(1 + self.alphabet.index(value) for value in inputs)]

    def decode(self, logits: Any) -> list[Hashable]:
        """The program's values from logits `[position d_vocab]` of one input: one for each token, none for BOS."""
        return [self.vocabulary[i] for i in np.asarray(logits).argmax(-1)[1:]]


def compile(
    program: Expression,
    alphabet: Sequence[Hashable],
    length: int,
    *,
    beside: Sequence[Expression] = (),
    decoys: int = 0,
    leak: float = 0.0,
    key: jax.Array | None = None,
    causal: bool = False,
    sharpness: float = 100.0,
    dtype: Any = jnp.float32,
) -> Compiled:
    """Compiles a program to a decoder that computes it exactly, and says which heads, MLPs and edges do.

    Args:
      program: an expression.
      alphabet: the tokens that inputs have.
      length: of the longest input, BOS not counted.
      beside: other programs that the same model computes, in the same heads and MLPs where they share an expression,
        and that are never read out.
      decoys: how many heads of each layer, besides those of programs, have random weights, with as many times four
        neurons of each MLP; they write where only they themselves read.
      leak: how much of what decoys write goes to a random direction of the rest of the stream, so that they have a
        small effect; the program is exact as long as it is small (0.001).
      key: for the decoys, and where heads stand.
      causal: whether a position sees only those up to itself.
      sharpness: of attention: the score of what is selected.

    Raises:
      ValueError: no expression; an alphabet that is empty or has a token twice, or BOS; sizes below 1; decoys without
        a key, a leak without decoys; values of a `Fraction` other than 0 and 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax.models import rasp
      >>> compiled = rasp.compile(rasp.reverse(), "abc", length=4)
      >>> compiled.decode(compiled.model(jnp.array(compiled.encode("aabc"))))
      ['c', 'b', 'a', 'a']
      >>> compiled.varying
      (('embed', 'v 2.0'), ('head 2.0', 'logits'))
    """
    check_expressions("compile", program, *beside)
    alphabet = tuple(alphabet)
    if not alphabet or len(set(alphabet)) < len(alphabet) or BOS in alphabet:
        raise ValueError(f"compile: the alphabet must be tokens that differ, without {BOS!r}, not {alphabet!r}")
    if length < 1 or sharpness <= 0 or decoys < 0 or leak < 0:
        raise ValueError(
            f"compile: length={length} and sharpness={sharpness} must be positive, decoys={decoys} and leak={leak} not "
            "negative"
        )
    if (decoys and key is None) or (leak and not decoys):
        raise ValueError(f"compile: decoys={decoys}, leak={leak}: decoys want a key, and a leak wants decoys")
    rng = np.random.default_rng(np.ravel(jax.random.key_data(jax.random.key(0) if key is None else key)))
    laid = plan((program, *beside), alphabet, length, rng, decoys)
    stream = _Stream(laid, 4 * bool(decoys))
    said = [value for one in (program, *beside) for value in laid.values[one]]
    vocabulary = tuple(dict.fromkeys((BOS, *alphabet, *said)))
    neurons = {layer: list(_neurons(laid, stream, layer)) for layer in range(laid.n_layers)}
    widths = [len(matrix) for one in laid.heads if isinstance(one, Looking) for matrix in laid.matrix(one)]
    widths += [len(laid.values[one]) for one in laid.heads if isinstance(one, Aggregate | Fraction)]
    config = Config(
        n_layers=laid.n_layers,
        n_heads=laid.n_heads,
        d_head=1 + max(widths, default=1),
        d_model=stream.size,
        d_mlp=max(1, max(map(len, neurons.values())) + 4 * decoys),
        d_vocab=len(vocabulary),
        n_ctx=length + 1,
        act="relu",
        norm="none",
        tie_embeddings=False,
        causal=causal,
        attn_scale=1.0,
    )
    empty = Decoder.abstract(config)
    arrays = {path: np.zeros(leaf.shape, np.float32) for path, leaf in paths(empty).items()}
    _embed(arrays, laid, stream, program, vocabulary)
    for layer in range(config.n_layers):
        own = {name.removeprefix(f"blocks.{layer}."): w for name, w in arrays.items() if f"blocks.{layer}." in name}
        for one in laid.looking(layer):
            _look(own, laid, stream, one, sharpness)
        for n, (reads, bias, writes) in enumerate(neurons[layer]):
            own["mlp.b_in"][n] = bias
            for place, weight in reads:
                own["mlp.w_in"][place, n] += weight
            for place, weight in writes:
                own["mlp.w_out"][n, place] += weight
        if decoys:
            taken = {laid.heads[one] for one in laid.looking(layer)}
            free = [head for head in range(config.n_heads) if head not in taken]
            _distract(own, stream, rng, free, len(neurons[layer]), leak)
    leaves = [jnp.asarray(array, dtype) for array in arrays.values()]
    return Compiled(jax.tree.unflatten(jax.tree.structure(empty), leaves), vocabulary, alphabet, *laid.edges(program))


class _Stream:
    """Which directions of the residual stream are whose: BOS, the values of expressions, their numbers, decoys."""

    def __init__(self, laid: Plan, n_spare: int):
        self.places: dict[Expression, slice] = {}
        self.numbers: dict[Expression, int] = {}
        self.bos, size = 0, 1
        for one in dict.fromkeys((tokens, indices, *laid.order)):
            self.places[one] = slice(size, size + len(laid.values[one]))
            size = self.places[one].stop
            if isinstance(one, Fraction | SelectorWidth):
                self.numbers[one] = size
                size += 1
        self.spare = slice(size, size + n_spare)
        self.size = size + n_spare

    def at(self, one: Expression, i: int) -> int:
        """The direction of an expression's value of number i."""
        return self.places[one].start + i


def _embed(w: Weights, laid: Plan, stream: _Stream, program: Expression, vocabulary: tuple[Hashable, ...]) -> None:
    w["w_e"][0, stream.bos] = 1
    n_tokens, length = len(laid.values[tokens]), len(laid.values[indices])
    w["w_e"][1 : 1 + n_tokens, stream.places[tokens]] = np.eye(n_tokens)
    w["w_pos"][1:, stream.places[indices]] = np.eye(length)
    for one in laid.heads:  # at BOS every head looks at BOS: taken away beforehand, no expression has a value there
        value = laid.values[one].index(one.default) if isinstance(one, Aggregate) else 0
        w["w_e"][0, stream.numbers[one] if one in stream.numbers else stream.at(one, value)] -= 1
    for i, value in enumerate(laid.values[program]):
        w["w_u"][stream.at(program, i), vocabulary.index(value)] = 1


def _look(w: Weights, laid: Plan, stream: _Stream, one: Looking, sharpness: float) -> None:
    """The weights of the head that looks for an expression."""
    head, matrix, select = laid.heads[one], laid.matrix(one), one.selector
    n_keys = matrix.shape[1]
    w["attn.w_q"][stream.places[select.queries], head, :n_keys] = sharpness * matrix
    w["attn.w_k"][stream.places[select.keys], head, :n_keys] = np.eye(n_keys)
    w["attn.b_q"][head, -1] = sharpness if isinstance(one, SelectorWidth) else sharpness / 2
    w["attn.w_k"][stream.bos, head, -1] = 1
    if isinstance(one, Aggregate):
        written = laid.values[one]
        for i, value in enumerate(laid.values[one.values]):
            w["attn.w_v"][stream.at(one.values, i), head, written.index(value)] = 1
        w["attn.w_v"][stream.bos, head, written.index(one.default)] = 1
        w["attn.w_o"][head, : len(written), stream.places[one]] = np.eye(len(written))
        return
    w["attn.w_o"][head, 0, stream.numbers[one]] = 1
    if isinstance(one, SelectorWidth):
        w["attn.w_v"][stream.bos, head, 0] = 1
        return
    w["attn.b_v"][head, 0] = 1
    w["attn.w_v"][stream.places[one.values], head, 0] = laid.values[one.values]


def _neurons(laid: Plan, stream: _Stream, layer: int) -> Any:
    """The neurons of a layer's MLP: what each reads, as pairs (direction, weight), its bias, and what it writes."""
    for one in laid.order:
        if laid.layers.get(one) != layer:
            continue
        values = laid.values[one]
        if isinstance(one, Map):
            choices = [tuple(enumerate(laid.values[arg])) for arg in one.args]
            for combination in itertools.product(*choices):
                reads = [(stream.at(arg, i), 1.0) for arg, (i, _) in zip(one.args, combination, strict=True)]
                value = one.fn(*(value for _, value in combination))
                yield reads, 1.0 - len(reads), [(stream.at(one, values.index(value)), 1.0)]
        elif isinstance(one, Fraction | SelectorWidth):
            # A step for each value, from the smallest number on, at which it begins and the one before it ends.
            counted = isinstance(one, SelectorWidth)
            numbers = sorted((1 / (1 + v) if counted else 1 + v, i) for i, v in enumerate(values))
            before, last = 0.0, None
            for number, i in numbers:
                slope, middle = 2 / (number - before), (number + before) / 2
                ends = [] if last is None else [(stream.at(one, last), -1.0)]
                for shift, sign in ((0.5, 1.0), (-0.5, -1.0)):
                    writes = [(place, sign * weight) for place, weight in ((stream.at(one, i), 1.0), *ends)]
                    yield [(stream.numbers[one], slope)], shift - slope * middle, writes
                before, last = number, i


def _distract(w: Weights, stream: _Stream, rng: np.random.Generator, heads: list[int], first: int, leak: float) -> None:
    """Random weights for the heads that are free and the neurons from `first` on, each of about unit size."""
    size, d_head = stream.size, w["attn.w_q"].shape[-1]
    n = w["mlp.w_in"].shape[1] - first

    def out(*shape: int) -> np.ndarray:
        written = np.zeros((*shape, size))
        written[..., : stream.spare.start] = leak * rng.normal(size=(*shape, stream.spare.start))
        written[..., stream.spare] = rng.normal(size=(*shape, stream.spare.stop - stream.spare.start))
        return written / shape[-1] ** 0.5

    for head in heads:
        for name in ("attn.w_q", "attn.w_k", "attn.w_v"):
            w[name][:, head] = rng.normal(size=(size, d_head)) / size**0.5
        w["attn.w_o"][head] = out(d_head)
    w["mlp.w_in"][:, first:] = rng.normal(size=(size, n)) / size**0.5
    w["mlp.w_out"][first:] = out(n)
