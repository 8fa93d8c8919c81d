"""What a training shows while it runs: TensorBoard scalars, density histograms, and how far it has come."""

import dataclasses
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.progress import Progress

DENSITY_EVERY = 10  # reports: a histogram costs an encoding of the batch


class Monitor:
    """A `report` for `train` and `train_many`; a context manager.

    Writes `train/loss`, `train/fvu`, `train/l0`, `train/dead`, ... and `train/tokens_per_second`, and of every tenth
    report the histogram of log10 of the share of the batch that each feature fires on; of several runs, each in a
    folder of its own.

    Args:
      log: folder of the TensorBoard files; none are written without one.
      bar: whether to show the progress, a bar on a terminal and lines elsewhere.

    Example:
      >>> import jax, tempfile
      >>> from interp_jax import dictionaries
      >>> x = jax.random.normal(jax.random.key(0), (512, 8))
      >>> dictionary = dictionaries.TopK.create(jax.random.key(1), d_in=8, d_sae=32, k=4)
      >>> state = dictionaries.TrainState.create(dictionary, n_steps=5)
      >>> with tempfile.TemporaryDirectory() as folder, dictionaries.Monitor(folder, bar=False) as monitor:
      ...     state = dictionaries.train(state, dictionaries.shuffled(x, 64), report=monitor, every=1)
      >>> sorted(monitor.last)[:4]
      ['aux', 'dead', 'fvu', 'l0']
    """

    def __init__(self, log: str | Path | None = None, *, bar: bool = True):
        self._progress, self._bar = None, bar
        self._log, self._writers, self._n = log, {}, 0
        self._clock, self._rate = (time.monotonic(), 0), 0.0
        self.last: dict[str, float] = {}

    def __enter__(self) -> "Monitor":
        self._clock = time.monotonic(), 0
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*raised)
        for writer in self._writers.values():
            writer.close()

    def __call__(self, state: Any, info: Any, batch: Any) -> None:
        """Shows one report; a leading axis of `info` is of runs, a dict is of sites."""
        if isinstance(info, dict):
            for name, one in info.items():
                self._write(name, state[name], one, batch[name])
        elif jnp.ndim(info.loss):
            for i in range(len(info.loss)):
                self._write(str(i), state[i], jax.tree.map(lambda leaf, i=i: leaf[i], info), batch)
        else:
            self._write("", state, info, batch)
        self._n += 1

    def _write(self, run: str, state: Any, info: Any, batch: Any) -> None:
        step = int(info.step) + 1
        scores = {f.name: float(getattr(info, f.name)) for f in dataclasses.fields(info) if f.name != "step"}
        now, (then, before) = time.monotonic(), self._clock
        if step != before:
            self._rate = (step - before) * len(jax.tree.leaves(batch)[0]) / max(now - then, 1e-9)
            self._clock = now, step
        self.last = scores | {"tokens_per_second": self._rate}
        if self._log is not None:
            self._to_tensorboard(run, step, state, batch)
        if self._progress is None:
            total = int(state.hyperparameters.n_steps)
            self._progress = Progress("training", total, shown=self._bar).__enter__()
        line = "loss {loss:.3g}  l0 {l0:.1f}  fvu {fvu:.3f}  dead {dead:.1%}  {tokens_per_second:,.0f} tok/s"
        self._progress.update(step, line.format(**self.last))

    def _to_tensorboard(self, run: str, step: int, state: Any, batch: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if run not in self._writers:
            self._writers[run] = EventFileWriter(str(Path(str(self._log), run)))
        values = [Summary.Value(tag=f"train/{name}", simple_value=value) for name, value in self.last.items()]
        events = [Summary(value=values)]
        if self._n % DENSITY_EVERY == 0:
            densities = np.asarray(_densities(state.dictionary, batch), np.float32)
            events.append(histogram_pb("train/log10_density", np.log10(np.maximum(densities, 1e-5)), buckets=25))
        for summary in events:
            self._writers[run].add_event(Event(wall_time=time.time(), step=step, summary=summary))


@jax.jit
def _densities(dictionary: Any, batch: Any) -> jax.Array:
    """The share of the batch on which each feature fires."""
    features = dictionary.encode(batch[0] if isinstance(batch, tuple) else batch)
    return jnp.mean((features != 0).astype(jnp.float32), axis=0)
