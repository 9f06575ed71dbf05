"""A peer in a process of its own, which does one epoch each time it is told to.

python -m benchmarks.child '{"name": ..., "work": {...}}'
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from types import TracebackType

from benchmarks.peers import Work, peer


class Child:
    """A process that holds a peer. Calling it trains one epoch; `seconds` is how long that took by the child's clock.

    Args:
        name: of the peer.
        work: what it trains.
        environment: variables to set in the process.

    Raises:
        RuntimeError: the process ended.
    """

    def __init__(self, name: str, work: Work, environment: dict[str, str] | None = None) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process, in __exit__
        told = json.dumps({"name": name, "work": asdict(work)})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})},
            text=True,
        )
        self._answer()

    def __call__(self) -> float:
        """Seconds of an epoch."""
        assert self._process.stdin is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("answer "):
                return line.split()[1]
        self._process.wait()
        self._errors.seek(0)
        raise RuntimeError(f"{self._name} ended with {self._process.returncode}:\n{self._errors.read()[-2000:]}")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    """Makes the peer, then serves."""
    told = json.loads(sys.argv[1])
    epoch = peer(told["name"], Work(**told["work"]))
    print("answer ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        epoch()
        print("answer", time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
