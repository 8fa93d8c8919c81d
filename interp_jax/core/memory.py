"""What was traced before, found again by what it was traced with. It keeps no function and no argument alive."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import suppress
import threading
from typing import Any
import weakref

from interp_jax.core.kinds import Lift
from interp_jax.core.reading import Reading

KEPT = 256


class Way:
    """How calls of the same functions are read.

    Attributes:
      lift: what can become an argument.
      codes: their code, held so that its id stays its own.
    """

    def __init__(self, reading: Reading):
        self.lift = Lift.ALL
        self.codes = reading.codes


class Entry:
    """What was made with a reading, the arrays that went into it, and weak references to what held those arrays."""

    def __init__(self, made: Any, reading: Reading, anchors: list[Any]):
        self.made, self.tokens, self.codes, self.anchors = made, reading.tokens, reading.codes, anchors


class Memory:
    """Entries by what was read, the last `KEPT` of them. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ways: OrderedDict[Hashable, Way] = OrderedDict()
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def way(self, kind: Hashable, reading: Reading) -> Way:
        """How to read calls of the functions that were met in a reading."""
        with self._lock:
            way = self._ways.setdefault((kind, *map(id, reading.codes)), Way(reading))
            _trim(self._ways)
        return way

    def find(self, kind: Hashable, reading: Reading) -> Any:
        """What was made with an equal reading, or None."""
        if reading.unseen:
            return None
        key = kind, reading.key
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.tokens != reading.tokens:
                return None
            with suppress(KeyError):  # a collection of garbage has just dropped it
                self._entries.move_to_end(key)
        return entry.made

    def keep(self, kind: Hashable, reading: Reading, made: Any, mortals: Iterable[Any]) -> None:
        """Remembers what was made until one of `mortals` dies. One entry takes the place of another of equal facts."""
        if reading.unseen:
            return
        key = kind, reading.key

        def drop(_: Any) -> None:
            with self._lock:
                self._entries.pop(key, None)

        anchors = [weakref.ref(x, drop) for x in {id(x): x for x in mortals}.values() if type(x).__weakrefoffset__]
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = Entry(made, reading, anchors)
            _trim(self._entries)


def _trim(entries: OrderedDict[Any, Any]) -> None:
    while len(entries) > KEPT:
        entries.popitem(last=False)
