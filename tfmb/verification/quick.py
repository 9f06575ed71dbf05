"""Verifies a model (`tfmb verify module:build --quick`) by a few updates, for a user's continuous integration."""

import tempfile
from pathlib import Path

from tfmb.data import Source, load
from tfmb.errors import ConfigError
from tfmb.jobs import build
from tfmb.optimizers import interop
from tfmb.training.keras_api.compile_args import read_compiled
from tfmb.types import KerasModel
from tfmb.verification import child
from tfmb.verification.checks import Report
from tfmb.verification.made_up import made_up_examples
from tfmb.verification.parity import check_parity
from tfmb.verification.runs import checks_in_processes
from tfmb.verification.subject import Subject

__all__ = ["STEPS", "subject_of_model", "verify_model"]

# Two epochs of two batches, the second of them smaller.
STEPS = 4
_BATCH_SIZE = 8


def verify_model(model: str, data: str | None = None) -> Report:
    """Trains a few updates of a model in several ways that must agree.

    Args:
        model: `module:build`, which returns a compiled Keras model.
        data: `module:load`, or the name of a dataset; None for made-up rows.

    Returns:
        The report: parity with `model.fit`, replica invariance, resume exactness.

    Raises:
        ConfigError: the model is not compiled, or does not say what rows it takes.
    """
    subject = subject_of_model(model, data)
    checks = [check_parity(subject)]
    with tempfile.TemporaryDirectory(prefix="tfmb-verify-") as folder:
        told = child.Told(run_dir=None, model=model, data=data, mirror=None, steps=STEPS, folder=folder, part="first")
        checks += checks_in_processes(told, subject)
    return Report(target=model, checks=tuple(checks))


def subject_of_model(model: str, data: str | None) -> Subject:
    """Returns what is trained: the model with its own optimizer, on a few rows.

    Args:
        model: as in `verify_model`.
        data: as in `verify_model`.

    Raises:
        ConfigError: as in `verify_model`.
    """

    def make_model(precision: str | None) -> KerasModel:
        made = build.build_model(model, None, None, None, precision=precision)
        compiled = read_compiled(made)
        if compiled.loss is None or compiled.optimizer is None:
            raise ConfigError(f"{model}: the model is not compiled: let the function compile it, with a loss")
        return made

    rows = _BATCH_SIZE + _BATCH_SIZE // 2
    made = make_model(None)  # before the data: its faults are named first
    if data is None:
        x, y = made_up_examples(made, rows, model)
        source = Source.from_arrays(x, y, name="made up")
    else:
        train = load(data).train
        source = train.rows(slice(0, min(rows, train.size)))
    return Subject(
        run_dir=Path(model),
        source=source,
        batch_size=min(_BATCH_SIZE, source.size),
        epochs=STEPS // 2,
        seed=0,
        shuffle=True,
        virtual_replicas=None,
        augmentation=None,
        make_model=make_model,
        make_optimizer=lambda made: interop.get(read_compiled(made).optimizer),
    )
