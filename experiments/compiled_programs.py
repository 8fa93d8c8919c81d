"""The programs of `compiled_circuits`, and pairs of inputs of which they say different things."""

import jax.numpy as jnp
import numpy as np

from interp_jax.models import rasp

FEW = 3  # letters of inputs in which tokens are to occur again
PROGRAMS = {
    "histogram": rasp.histogram(),
    "double_histogram": rasp.double_histogram(),
    "sort_unique": rasp.sort_unique(),
    "pair_balance": rasp.pair_balance("a", "b"),
    "frac_prevs": rasp.frac_prevs("a"),
    "reverse": rasp.reverse(),
    "induction": rasp.induction(),
}


def drawn(rng: np.random.Generator, name: str, letters: list[str], length: int) -> list[str]:
    """An input that suits a program."""
    if name == "sort_unique":
        return list(rng.permutation(letters)[:length])
    if name == "induction":
        first = list(rng.permutation(letters)[: length - 1])
        return [*first, first[rng.integers(length - 2)]]
    return list(rng.choice(letters[:FEW], length))


def pairs(name: str, compiled: rasp.Compiled, n: int, length: int, rng: np.random.Generator) -> tuple:
    """Clean and corrupted tokens `[n position]`, the position asked, the ids of what the program says there of each.

    The position is the last of an induction, else a random one.
    """
    rows, letters = [], [str(letter) for letter in compiled.alphabet]
    while len(rows) < n:
        two = [drawn(rng, name, letters, length) for _ in range(2)]
        place = length - 1 if name == "induction" else int(rng.integers(length))
        said = [rasp.evaluate(PROGRAMS[name], one)[place] for one in two]
        if said[0] != said[1]:
            rows.append((*map(compiled.encode, two), 1 + place, *map(compiled.vocabulary.index, said)))
    return tuple(map(jnp.array, zip(*rows, strict=True)))
