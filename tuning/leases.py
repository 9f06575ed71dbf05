"""Who was heard of when: a worker that is not heard of for a while loses its trial to the others."""

import threading
import time

__all__ = ["BEAT_SECONDS", "HUNG_SECONDS", "LEASE_SECONDS", "START_SECONDS", "Leases"]

# A worker calls at least so often; after so long without a call its trial is given back, and then the worker is ended.
BEAT_SECONDS, LEASE_SECONDS, HUNG_SECONDS = 5.0, 20.0, 60.0
# A worker that starts, and imports TensorFlow and the user's code, is ended after so long without a first call.
START_SECONDS = 600.0


class Leases:
    """When each worker was heard of last. It may be called from any thread.

    Attributes:
        lost: workers whose trial was given back because they were silent, until they ask for the next one.
    """

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self._heard: dict[str, float] = {}
        self._lock = threading.Lock()
        self._looked = time.monotonic()

    def expect(self, worker: str) -> None:
        """A worker starts."""
        with self._lock:
            self._heard[worker] = time.monotonic() + START_SECONDS - HUNG_SECONDS

    def heard(self, worker: str) -> None:
        """A worker called."""
        with self._lock:
            self._heard[worker] = time.monotonic()

    def forget(self, worker: str) -> None:
        """A worker ended."""
        with self._lock:
            self._heard.pop(worker, None)
            self.lost.discard(worker)

    def silent(self) -> dict[str, float]:
        """Those whose lease is over, and for how many seconds they were not heard of.

        It is to be called every moment: where it was not, this process itself did not run, and nobody is to blame.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._looked > LEASE_SECONDS / 2:
                self._heard = dict.fromkeys(self._heard, now)
            self._looked = now
            return {worker: now - at for worker, at in self._heard.items() if now - at > LEASE_SECONDS}
