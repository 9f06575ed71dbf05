"""Memory of a long run of the reference CNN at batch 64, and its peak beside `keras.Model.fit`'s.

python -m benchmarks.memory [--epochs 50] [--updates 40]
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import Work
from benchmarks.results import publish

PEERS = ("tfmb", "keras fit")


def resident_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def one(name: str, epochs: int, updates: int) -> dict[str, Any]:
    """(memory after each epoch, the peak) of one run in this process, in MiB."""
    import tfmb
    from benchmarks.peers import images
    from benchmarks.peers.keras_loop import build
    from tfmb.backend import keras

    work = Work(model="cnn", batch_size=64, updates=updates)
    x, y = images(work)
    model, seen = build(work), []
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(resident_mib()))
    fit = tfmb.fit if name == "tfmb" else keras.Model.fit
    fit(model, x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[watch])
    return {"after_epochs": seen, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--updates", type=int, default=40, help="of an epoch")
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.epochs, options.updates)))
        return
    found = {}
    for name in PEERS:
        command = [sys.executable, "-m", "benchmarks.memory", "--one", name]
        command += ["--epochs", str(options.epochs), "--updates", str(options.updates)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    tenth = max(1, options.epochs // 10)
    lines = [f"| peer | after {tenth} epochs, MiB | after {options.epochs} | peak |", "|---|---|---|---|"]
    for name, run in found.items():
        after = run["after_epochs"]
        lines.append(f"| {name} | {after[tenth - 1]:,.0f} | {after[-1]:,.0f} | {run['peak']:,.0f} |")
    lines += ["", f"Peak over Keras's: {found['tfmb']['peak'] / found['keras fit']['peak']:.2f}"]
    publish("memory", found, lines)


if __name__ == "__main__":
    main()
