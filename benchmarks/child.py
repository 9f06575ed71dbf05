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
from pathlib import Path
from types import TracebackType

from benchmarks.peers import Work, peer


class Child:
    """A process that holds a peer. Calling it trains one epoch; `seconds` is how long that took by the child's clock.

    Args:
        name: of the peer.
        work: what it trains.

    Raises:
        RuntimeError: the process ended.
    """

    def __init__(self, name: str, work: Work) -> None:
        self._name = name
        self._folder = tempfile.TemporaryDirectory()
        self._errors = Path(self._folder.name) / "errors"
        told = json.dumps({"name": name, "work": asdict(work)})
        # A cache of its own, in which only its own trials are found.
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TFMB_CACHE": self._folder.name}
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.child", told],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
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
        raise RuntimeError(f"{self._name} ended with {self._process.returncode}:\n{self._errors.read_text()[-2000:]}")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

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
