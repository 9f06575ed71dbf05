"""Our loop beside `keras.Model.fit`, PyTorch and JAX: one model, batch and precision, all peers in one interleaved run.

python -m benchmarks.speed --model cnn --batch-size 64 [--precision float32] [--rounds 9] [--peers tfmb 'keras fit' ...]

Each peer lives in a process of its own and trains epochs in turn, so that a change of the machine's pace meets all.
Peers other than Keras need `pip install '.[bench]'`. Ends with a table and the ratios that users ask for: over the best
Keras setting, over PyTorch's best, over JAX's best, with 95 % intervals, and the share of the machine's matrix-product
rate that is reached, by products timed in the same rounds.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.child import Child
from benchmarks.limit import FLOPS_AN_EXAMPLE
from benchmarks.pairs import Ratio, speedup
from benchmarks.peers import MODELS, PEERS, Work, product
from benchmarks.results import publish

# Peer -> the family whose best setting it may be.
FAMILIES = {"tfmb": "default", "keras fit": "keras", "torch": "torch", "jax": "jax"}
DEFAULT = [name for name in PEERS if not name.startswith("tfmb,")]
# A peer whose epoch takes so many times the first peer's is timed once and left out of the rounds.
_HOPELESS = 12.0
_MOST_UPDATES, _EXAMPLES = {"cnn": 1000, "mlp": 5000, "resnet": 500}, {"cnn": 8192, "mlp": 160_000, "resnet": 4096}


def updates_of(model: str, batch_size: int) -> int:
    """The updates of an epoch: about a second's."""
    return max(4, min(_MOST_UPDATES[model], _EXAMPLES[model] // batch_size))


def run(work: Work, names: list[str], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """(seconds of each epoch by peer, the first epoch's seconds of those that were left out)."""
    left_out: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        children = {}
        for name in names:
            print(f"starting {name}", file=sys.stderr, flush=True)
            children[name] = stack.enter_context(Child(name, work))
            children[name]()  # traces, compiles, fills caches
        once = {name: child() for name, child in children.items()}
        for name, seconds in once.items():
            if seconds > _HOPELESS * once[names[0]] and name != names[0]:
                left_out[name] = seconds
                children.pop(name).close()
        times: dict[str, list[float]] = {name: [] for name in children}
        for number in range(rounds):
            for name in list(children) if number % 2 == 0 else list(children)[::-1]:
                times[name].append(children[name]())
    return times, left_out


def best_of(family: str, seconds: dict[str, list[float]]) -> str | None:
    """The fastest peer of a family, by its median."""
    members = [name for name in seconds if _family(name) == family]
    return min(members, key=lambda name: statistics.median(seconds[name]), default=None)


def _family(name: str) -> str | None:
    """Whose setting a peer is; our own fixed ones are a family too, which what a trial chose is compared with."""
    if name == "tfmb, bfloat16":  # other work, not another way to do it
        return "bfloat16"
    return "fixed" if name.startswith("tfmb, ") else FAMILIES.get(name.split(",")[0].replace(" compile", ""))


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="cnn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=9, help="measured epochs of each peer")
    parser.add_argument("--updates", type=int, help="of an epoch; else about a second's")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=DEFAULT)
    options = parser.parse_args()
    missing = [name for name in ("torch", "jax") if importlib.util.find_spec(name) is None]
    names = [name for name in options.peers if name.split()[0].rstrip(",") not in missing]
    if options.model not in FLOPS_AN_EXAMPLE:
        names = [name for name in names if name != "products"]
    if missing:
        print(f"{', '.join(missing)} is not installed: pip install '.[bench]'", file=sys.stderr)
    updates = options.updates or updates_of(options.model, options.batch_size)
    work = Work(model=options.model, batch_size=options.batch_size, updates=updates, precision=options.precision)

    limit = json.loads(subprocess.run(
        [sys.executable, "-m", "benchmarks.limit"], check=True, capture_output=True, text=True
    ).stdout)  # fmt: skip
    seconds, left_out = run(work, names, options.rounds)
    rates = {name: work.batch_size * updates / statistics.median(times) for name, times in seconds.items()}
    lines = ["| peer | updates/s | examples/s |", "|---|---|---|"]
    lines += [f"| {name} | {rate / work.batch_size:,.1f} | {rate:,.0f} |" for name, rate in rates.items()]
    for name, once in left_out.items():
        lines.append(f"| {name} (one epoch) | {updates / once:,.1f} | {work.batch_size * updates / once:,.0f} |")
    ours = names[0]
    ratios: dict[str, Ratio] = {}
    for family in ("default", "fixed", "bfloat16", "keras", "torch", "jax"):
        best = best_of(family, {name: times for name, times in seconds.items() if name != ours})
        if best is not None:
            ratios[best] = speedup(seconds, ours, best)
    if "keras fit" in seconds and "keras fit" not in ratios:
        ratios["keras fit"] = speedup(seconds, ours, "keras fit")
    lines.append("")
    lines += [f"{ours} over {name}: {ratio}" for name, ratio in ratios.items()]
    machine = ", ".join(f"{name} {value:,.0f}" for name, value in limit.items())
    lines += ["", f"The machine, before the rounds: {machine}."]
    share: Ratio | None = None
    if "products" in seconds:
        share = speedup(seconds, ours, "products").times(product.share(work))
        lines.append(f"{ours} reaches {share} of the matrix-product rate in the same rounds.")
    report: dict[str, Any] = {
        "work": vars(work),
        "seconds": seconds,
        "one_epoch_seconds": left_out,
        "examples_per_second": rates,
        "over": {name: vars(ratio) for name, ratio in ratios.items()},
        "limit": limit,
        "share_of_product_rate": None if share is None else vars(share),
    }
    publish(f"speed-{work.model}-{work.batch_size}-{work.precision}", report, lines)


if __name__ == "__main__":
    main()
