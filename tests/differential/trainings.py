"""What is done with a model: calls of fit with their data and callbacks, and saving, compiling, freezing in between."""

from random import Random
from typing import Any

from .terms import Term, call, code

__all__ = ["BATCHED", "draw_calls", "draw_data"]

# Kinds of data that come in batches.
BATCHED = ("dataset", "generator", "PyDataset")


def draw_data(random: Random, outputs: list[dict[str, Any]], stateful: bool, strings: bool) -> dict[str, Any]:
    """How many examples there are, and in what they are given."""
    batch = random.choice([4, 5, 8])
    count = batch * random.choice([2, 3, 4]) + (0 if stateful else random.choice([0, 1, 3]))
    single = len(outputs) == 1 and len(outputs[0]["shape"]) == 1
    weights = random.choice([None, None, None, "sample", "class"])
    if weights == "class" and not (single and outputs[0]["target"] in ("classes", "one hot", "bits")):
        weights = "sample"
    if weights == "class" and outputs[0]["target"] == "bits" and outputs[0]["shape"] != [1]:
        weights = None
    kind = random.choice(["arrays", "arrays", "arrays", "dataset", "dataset", "tensors", "generator", "PyDataset"])
    if strings:  # which fit does not take from arrays
        kind = "dataset"
    shuffled = kind == "dataset" and random.random() < 0.4
    return {"examples": count, "batch": batch, "kind": kind, "shuffled": shuffled, "weights": weights}


def draw_calls(random: Random, program: dict[str, Any]) -> list[dict[str, Any]]:
    """One to three calls of fit, with what stands between them."""
    calls = [_fit(random, program)]
    for _ in range(random.choice([0, 0, 0, 1, 1, 2])):
        between = random.choice(["nothing", "save", "weights", "compile", "freeze", "score", "save"])
        if between == "save" and program["form"] == "subclass":
            between = "weights"
        if between == "compile":
            calls.append({"do": "compile", "optimizer": None})  # which is drawn when all callbacks are known
        elif between == "freeze":
            calls.append({"do": "freeze", "layer": random.randrange(4), "trainable": random.random() < 0.3})
        elif between != "nothing":
            calls.append({"do": between})
        by = "keras" if random.random() < 0.25 else "fit"
        calls.append({**_fit(random, program), "do": by})
    return calls


def _fit(random: Random, program: dict[str, Any]) -> dict[str, Any]:
    data = program["data"]
    steps = data["examples"] // data["batch"]
    given: dict[str, Any] = {"epochs": random.choice([1, 2, 2, 3])}
    if random.random() < 0.1:
        given["initial_epoch"] = 1
        given["epochs"] += 1
    # How far tf.data reads ahead of a pass that is broken off is chance, and moves the next order of a shuffle.
    whole = data["shuffled"]
    repeats = data["kind"] == "dataset" and random.random() < 0.3 and not whole
    if repeats or data["kind"] == "generator" or (random.random() < 0.1 and not whole):
        given["steps_per_epoch"] = max(1, steps - random.choice([0, 1]))
    validation = random.choice([None, None, "data", "split"])
    if validation == "split" and data["kind"] in BATCHED:
        validation = "data"
    if validation == "split" and program["stateful"]:
        validation = None
    if validation == "split":
        given["validation_split"] = random.choice([0.2, 0.3])
    if validation:
        if random.random() < 0.15:
            given["validation_freq"] = random.choice([2, code("[1, 3]")])  # fit takes no tuple
        if random.random() < 0.15 and not program["stateful"] and data["kind"] not in BATCHED:
            given["validation_batch_size"] = 3
        if random.random() < 0.15 and validation == "data" and not whole:
            given["validation_steps"] = 1
    if data["kind"] not in BATCHED and random.random() < 0.08 and not program["stateful"]:
        given["shuffle"] = True
    callbacks = [_callback(random, program, validation is not None) for _ in range(random.choice([0, 0, 1, 1, 2]))]
    return {"do": "fit", "validation": validation, "repeats": repeats, "given": given, "callbacks": callbacks}


_CALLBACKS = [
    "EarlyStopping",
    "ReduceLROnPlateau",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "SwapEMAWeights",
    "LambdaCallback",
    "LambdaCallback",
    "TerminateOnNaN",
    "CSVLogger",
    "BackupAndRestore",
]


def _callback(random: Random, program: dict[str, Any], validated: bool) -> Term:
    monitor = random.choice(["val_loss", "loss"]) if validated else "loss"
    kind = random.choice(_CALLBACKS)
    if kind == "SwapEMAWeights" and program["precision"] == "mixed_float16":
        kind = "TerminateOnNaN"  # a LossScaleOptimizer's averages are not found
    given: dict[str, Any] = {}
    of: list[Any] = []
    if kind == "EarlyStopping":
        given = {"monitor": monitor, "patience": random.choice([0, 1]), "min_delta": random.choice([0.0, 0.1, 10.0])}
        given["restore_best_weights"] = random.random() < 0.5
    elif kind == "ReduceLROnPlateau":
        given = {"monitor": monitor, "patience": 1, "factor": 0.5, "min_delta": random.choice([0.0, 10.0])}
        given["cooldown"] = random.choice([0, 1])
    elif kind == "LearningRateScheduler":
        of = [code("lambda epoch, rate: rate / (epoch + 1)")]
    elif kind == "ModelCheckpoint":
        whole = program["form"] != "subclass" and random.random() < 0.4
        of = [f"saved-{{epoch}}.{'keras' if whole else 'weights.h5'}"]
        given = {"save_weights_only": not whole, "monitor": monitor, "save_best_only": random.random() < 0.4}
        if random.random() < 0.25:
            of, given = [of[0].replace("-{epoch}", "")], {"save_weights_only": not whole, "save_freq": 2}
    elif kind == "SwapEMAWeights":
        given = {"swap_on_epoch": random.random() < 0.6}
    elif kind == "LambdaCallback":
        hook = random.choice(["epoch_end", "epoch_begin", "train_batch_end", "test_batch_end", "train_end"])
        names = "logs" if hook == "train_end" else "number, logs"
        given = {f"on_{hook}": code(f"lambda {names}: note({hook!r}, logs)")}
    elif kind == "CSVLogger":
        of = ["log.csv"]
    elif kind == "BackupAndRestore" and program["form"] in ("subclass", "unbuilt"):
        return call("callbacks.CSVLogger", "log.csv")  # fit wants it built; ours builds it before
    elif kind == "BackupAndRestore":
        of = ["backup"]
    return call(f"callbacks.{kind}", *of, **given)
