"""What an eager call of a transform costs beside the compiled function itself, and what makes it compile again.

    python experiments/bench/calls.py

A function of 200 arrays, and the microworld's model; an edit that is another one in each call. Milliseconds of a call
once it is compiled, the median of 200, and how many programs XLA compiled in them.
"""

from functools import partial
import time

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import add, at, via, zero

WARM, N = 3, 200
compiled = []
jax.monitoring.register_event_duration_secs_listener(lambda event, _, **kwargs: compiled.append(event))


def first(parameters, x):
    return ij.site(sum(parameters[1:], parameters[0]) * x, "h")


def timed(run, vectors) -> tuple[float, int]:
    """Milliseconds of one of N calls `run(vector, number)`, each with others, and the compilations in them."""
    seconds = []
    for i, vector in enumerate(vectors):
        if i == WARM:
            compiled.clear()
        start = time.perf_counter()
        jax.block_until_ready(run(vector, i / 7))
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds[WARM:])), sum(event.endswith("backend_compile_duration") for event in compiled)


def of_a_function() -> dict:
    parameters, x, plain = [jnp.ones(2) * i for i in range(200)], jnp.ones(2), jax.jit(first)
    return {
        "200 arrays: jax.jit(f)": lambda v, s: plain(parameters, v),
        "  capture": lambda v, s: ij.capture(first, "h")(parameters, v),
        "  intervene, another vector": lambda v, s: ij.intervene(first, {"h": add(v)})(parameters, x),
        "  a lambda built again": lambda v, s: ij.intervene(first, {"h": lambda h: h + v})(parameters, x),
        "  a function built again": lambda v, s: ij.capture(lambda p: first(p, v), "h")(parameters),
        "  another number": lambda v, s: ij.intervene(first, {"h": lambda h: h * s})(parameters, x),
    }


def of_a_model(model) -> dict:
    tokens, forward, site = jnp.ones((1, 8), jnp.int32), jax.jit(models.forward), "blocks.2.resid_post"

    def edited(edit):
        return ij.intervene(models.forward, {site: edit})(model, tokens)

    return {
        "microworld: jax.jit(forward)": lambda v, s: forward(model, tokens),
        "  another vector": lambda v, s: edited(add(v)),
        "  another position": lambda v, s: edited(at(zero(), position=int(7 * s) % 8)),
        "  a partial built again": lambda v, s: edited(partial(jnp.add, v)),
        "  a via built again": lambda v, s: edited(via({"e": "embed"}, lambda h, e: h + e * v)),
    }


def main() -> None:
    model, _ = models.load("microworld")
    print(f"{'':32}{'ms a call':>10}{'compilations':>14}")
    for rows, width, dtype in (
        (of_a_function(), 2, jnp.float32),
        (of_a_model(model), model.config.d_model, model.dtype),
    ):
        vectors = list(jax.random.normal(jax.random.key(0), (WARM + N, width), dtype))
        for name, run in rows.items():
            milliseconds, n = timed(run, vectors)
            print(f"{name:32}{milliseconds:10.2f}{n:14d}")


if __name__ == "__main__":
    main()
