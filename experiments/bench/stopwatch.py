"""The stopwatch that the benchmarks share."""

import statistics
import time

import jax


def stopwatch(runs: dict, n: int = 5) -> dict[str, tuple[float, float]]:
    """For each run, seconds of its first call, which compiles, and the median of `n` more.

    The runs take turns, so that whatever else the machine does meanwhile slows all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(n + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: (first, statistics.median(rest)) for name, (first, *rest) in seconds.items()}
