"""How fast an endpoint may be asked: so many requests and so many tokens in any minute."""

from collections import deque
import threading
import time

MINUTE = 60.0


class Pace:
    """Lets requests go when they may, in their order.

    Args:
      requests: that may begin in any minute; None: any number.
      tokens: likewise; a request of more than these alone waits for an empty minute.

    Raises:
      ValueError: a limit below 1.

    Example:
      >>> from interp_jax.io.pacing import Pace
      >>> pace = Pace(requests=2)
      >>> pace.wait(100), pace.wait(100)  # a third one would have to wait for a minute
      (None, None)
    """

    def __init__(self, requests: int | None = None, tokens: int | None = None):
        for name, limit in (("requests", requests), ("tokens", tokens)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name}_per_minute={limit}: it must be at least 1")
        self._requests, self._tokens = requests, tokens
        self._begun: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def wait(self, n_tokens: int) -> None:
        """Returns when a request of so many tokens may begin, and takes it for begun."""
        if self._requests is None and self._tokens is None:
            return
        with self._lock:  # held while it sleeps: who comes later begins later
            while True:
                now = time.monotonic()
                while self._begun and self._begun[0][0] <= now - MINUTE:
                    self._begun.popleft()
                used = sum(n for _, n in self._begun)
                full = self._requests is not None and len(self._begun) >= self._requests
                full |= self._tokens is not None and bool(self._begun) and used + n_tokens > self._tokens
                if not full:
                    self._begun.append((now, n_tokens))
                    return
                time.sleep(self._begun[0][0] + MINUTE - now)
