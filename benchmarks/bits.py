"""SHA-256 of float32 weights and slots after training on 1, 2 and 4 devices and 1 and 2 workers; and what `fit` does.

python -m benchmarks.bits [--updates 300] [--seeds 1] [--dataset digits]
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PARTS = 4
DEVICES = (1, 2, 4)
# 14 batches of 50 (which 4 does not divide) and a ragged one of 37.
BATCH_SIZE, EXAMPLES, UPDATES_AN_EPOCH = 50, 737, 15


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training run whose bits are compared.

    Attributes:
        model: `"cnn"` (with our dropout), `"resnet"` (with BatchNormalization) or `"table"`.
        optimizer: makes one of `tfmb.optimizers`.
        augment: whether images are shifted, turned, zoomed and erased.
    """

    model: str
    optimizer: Callable[[], Any]
    augment: bool = False


def cases() -> dict[str, Case]:
    """The runs by name; together they use every kind of rule, clipping, augmentation and ragged batches."""
    from tfmb.optimizers import SGD, Adam

    return {
        "cnn-adam-augmented": Case(model="cnn", optimizer=lambda: Adam(1e-3), augment=True),
        "cnn-momentum-clipped": Case(model="cnn", optimizer=lambda: SGD(0.05, momentum=0.9, global_clipnorm=1.0)),
        "resnet-adam": Case(model="resnet", optimizer=lambda: Adam(1e-3)),
        "resnet-momentum": Case(model="resnet", optimizer=lambda: SGD(0.05, momentum=0.9)),
        "table-sgd-clipped": Case(model="table", optimizer=lambda: SGD(0.05, clipvalue=0.1)),
    }


def digest(name: str, seed: int, updates: int = 300, dataset: str = "digits", **where: Any) -> str:
    """Trains a case and hashes its weights, state and slots.

    Args:
        name: of the case.
        seed: of the run.
        updates: a multiple of 15.
        dataset: of the images.
        **where: `strategy` and `replicas`, as `tfmb.fit` takes them.

    Returns:
        SHA-256 in hexadecimal.

    Raises:
        AssertionError: the copies of a variable on several devices differ.
    """
    import warnings

    import tfmb

    case = cases()[name]
    x, y, build = _problem(case, seed, dataset)
    optimizer = case.optimizer()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*normalise by the statistics")
        history = tfmb.fit(
            build,
            x,
            y,
            batch_size=BATCH_SIZE,
            epochs=updates // UPDATES_AN_EPOCH,
            verbose=0,
            optimizer=optimizer,
            loss=_loss(),
            seed=seed,
            virtual_replicas=PARTS,
            augment=tfmb.data.Augmentation(shift=2, rotate=10, zoom=0.1, erase=0.2) if case.augment else None,
            **where,
        )
    return _hash([*[v.value for v in history.model.weights], *optimizer.variables])


def keras_digest(seed: int, replicas: int, updates: int, dataset: str = "digits") -> str:
    """The same for `keras.Model.fit` on the CNN with Keras's Adam; a word for how it ends where it does not train."""
    from tfmb.backend import keras, tf

    x, y, build = _problem(cases()["cnn-adam-augmented"], seed, dataset)
    devices = [f"/cpu:{number}" for number in range(replicas)]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    try:
        with strategy.scope():
            model = build()
            model.compile(keras.optimizers.Adam(1e-3), _loss())
        model.fit(x, y, batch_size=BATCH_SIZE, epochs=updates // UPDATES_AN_EPOCH, shuffle=False, verbose=0)
    except Exception as error:  # how it fails, whatever that is, is the result
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    return hashlib.sha256(b"".join(np.ascontiguousarray(w).tobytes() for w in model.get_weights())).hexdigest()


def worker_digests(name: str, seed: int, updates: int, dataset: str, workers: int) -> str:
    """The digest of a run of several worker processes, or what they said where they failed."""
    this = [sys.executable, "-m", "benchmarks.bits", "--one", name, "--seed", str(seed), "--updates", str(updates)]
    command = [sys.executable, "-m", "tfmb", "launch", "--workers", str(workers), "--", *this, "--dataset", dataset]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    found = {line.split("digest ", 1)[1] for line in done.stdout.splitlines() if "digest " in line}
    if done.returncode or len(found) != 1:
        return f"failed: {done.returncode} {sorted(found)} {(done.stderr.strip().splitlines() or [''])[-1]}"
    return found.pop()


def main() -> None:
    """Prints a table; ends with 1 where the bits of one of our runs differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--dataset", default="digits", help="digits or mnist")
    parser.add_argument("--one", choices=list(cases()), help="only this case, as one of the workers of TF_CONFIG")
    options = parser.parse_args()
    if options.updates < 1 or options.updates % UPDATES_AN_EPOCH:
        parser.error(f"--updates {options.updates} must be a multiple of {UPDATES_AN_EPOCH}, an epoch's")
    if options.one:
        where = {"strategy": "multi-worker"}
        print("digest", digest(options.one, options.seed, options.updates, options.dataset, **where), flush=True)
        return
    from tfmb.distribution import configure_replicas

    configure_replicas(max(DEVICES))
    print(f"| run | seed | {' | '.join(f'{n} device(s)' for n in DEVICES)} | 2 workers | same bits |")
    print("|---|---|" + "---|" * (len(DEVICES) + 2))
    same = True
    for name in cases():
        for seed in range(options.seed, options.seed + options.seeds):
            found = [digest(name, seed, options.updates, options.dataset, devices=n) for n in DEVICES]
            found.append(worker_digests(name, seed, options.updates, options.dataset, workers=2))
            same = same and len(set(found)) == 1
            shown = " | ".join(one[:12] for one in found)
            print(f"| {name} | {seed} | {shown} | {'yes' if len(set(found)) == 1 else 'NO'} |", flush=True)
    found = [keras_digest(options.seed, n, options.updates, options.dataset) for n in DEVICES]
    shown = " | ".join(one if ":" in one else one[:12] for one in found)
    print(f"| keras fit, cnn, Adam | {options.seed} | {shown} | - | {'yes' if len(set(found)) == 1 else 'no'} |")
    sys.exit(0 if same else 1)


def _problem(case: Case, seed: int, dataset: str) -> tuple[Any, Any, Callable[[], Any]]:
    import tfmb
    from tfmb.backend import keras

    if case.model == "table":
        numbers = np.random.default_rng(seed)
        x = {"age": numbers.normal(size=(EXAMPLES, 3)), "income": numbers.normal(size=(EXAMPLES, 5))}
        x = {key: value.astype("float32") for key, value in x.items()}
        y = (x["age"].sum(axis=1) + x["income"].max(axis=1) > 1).astype("int64")

        def table() -> Any:
            init = [keras.initializers.GlorotUniform(seed=100 * seed + n) for n in range(2)]
            inputs = {"age": keras.Input((3,), name="age"), "income": keras.Input((5,), name="income")}
            hidden = keras.layers.Concatenate()(list(inputs.values()))
            hidden = keras.layers.Dense(32, activation="relu", kernel_initializer=init[0])(hidden)
            hidden = tfmb.layers.Dropout(0.2)(hidden)
            return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer=init[1])(hidden))

        return x, y, table
    splits = tfmb.data.load(dataset)
    x, y = splits.train.examples[:EXAMPLES], splits.train.labels[:EXAMPLES]

    def images() -> Any:
        options = {"width": 8} if case.model == "resnet" else {}
        bare = tfmb.models.MODELS[case.model]((28, 28, 1), 10, seed=seed, **options)
        return tfmb.models.with_preprocessing(bare, (28, 28, 1), splits.normalization)

    return x, y, images


def _loss() -> Any:
    from tfmb.backend import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _hash(variables: list[Any]) -> str:
    hashed = hashlib.sha256()
    for variable in variables:
        copies = [copy.numpy() for copy in getattr(variable, "values", [variable])]
        if not all(np.array_equal(copy, copies[0]) for copy in copies):
            raise AssertionError(f"the copies of {variable.name} differ between replicas")
        hashed.update(np.ascontiguousarray(copies[0]).tobytes())
    return hashed.hexdigest()


if __name__ == "__main__":
    main()
