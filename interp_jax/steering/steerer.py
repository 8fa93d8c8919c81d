"""What can steer: anything that knows its site and gives an intervention for a strength."""

from typing import Any, Protocol, runtime_checkable

from interp_jax.core import Intervention


@runtime_checkable
class Steerer(Protocol):
    """What `steering.sweep` and the scores of AxBench take: a `SteeringVector`, `Feature`, `LoReFT`, `ReFTr1`, or any
    pytree of one's own that has these three.
    """

    @property
    def site(self) -> str:
        """Address of the site that it edits."""
        ...

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The numbers of the layers of which each can be steered by itself; None where it is one edit."""
        ...

    def edit(self, strength: Any = 1.0, *, position: Any = None) -> Intervention:
        """The intervention of a strength, which may be traced; `position` as in `interventions.at`, None everywhere."""
        ...
