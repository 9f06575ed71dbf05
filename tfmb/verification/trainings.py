"""Trainings of a run's few batches: by our loop as a user calls it, and by Keras's on the same batches."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.batches import Order, batched
from tfmb.errors import TfmbError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.shared_state import copies_of
from tfmb.training.fit import fit
from tfmb.training.keras_api.compile_args import read_compiled
from tfmb.types import KerasModel
from tfmb.verification.counterpart import apply_dense_gradients, keras_counterpart
from tfmb.verification.problem import in_precision
from tfmb.verification.subject import Subject

__all__ = ["Trained", "batches_of", "compiled_for_keras", "fit_subject", "values_of", "why_not_64_bits"]

Arrays = list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of a training.

    Attributes:
        model: the trained model.
        optimizer: ours.
        history: Keras's History.
    """

    model: Any
    optimizer: Optimizer
    history: Any

    def state(self) -> Arrays:
        """Weights, statistics and slots, the first replica's copy of each."""
        return [copies[0] for copies in self._copies()]

    def copies_agree(self) -> bool:
        """Whether all replicas hold the same bits."""
        return all(len({copy.tobytes() for copy in copies}) == 1 for copies in self._copies())

    def _copies(self) -> list[Arrays]:
        variables = [*self.model.variables, *self.optimizer.variables]
        return [[copy.numpy() for copy in copies_of(v)] for v in variables]


def fit_subject(
    subject: Subject,
    *,
    precision: str | None = None,
    prepare: Callable[[Any], Any] = lambda model: None,
    replicas: int = 1,
    virtual_replicas: Any = "auto",
    callbacks: Any = None,
    settle: Callable[[Optimizer], None] = lambda optimizer: None,
    run_dir: Path | None = None,
    resume: bool = False,
) -> Trained:
    """Trains by `tfmb.fit`.

    Args:
        subject: the run to train again.
        precision: of the model; None for the run's own.
        prepare: changes the model before it is used.
        replicas: logical devices.
        virtual_replicas: as in `fit`.
        callbacks: Keras's.
        settle: changes the optimizer before it is used.
        run_dir: where it is saved.
        resume: whether to go on with that.
    """

    def build() -> Any:
        model = subject.make_model(precision)
        prepare(model)
        return model

    optimizer = subject.make_optimizer(build())
    settle(optimizer)
    source = subject.source
    with warnings.catch_warnings():
        # What the checks are about is known to them.
        warnings.filterwarnings("ignore", message=".*(normalise by the statistics|draw random numbers|see every batch)")
        history = fit(
            build,
            source.examples,
            source.labels,
            batch_size=subject.batch_size,
            epochs=subject.epochs,
            verbose=0,
            callbacks=callbacks,
            shuffle=subject.shuffle,
            sample_weight=source.sample_weight,
            optimizer=optimizer,
            devices=replicas,
            seed=subject.seed,
            run_dir=run_dir,
            resume=resume,
            virtual_replicas=virtual_replicas,
            augment=subject.augmentation,
            jit_compile=False,
            checkpoint_every=1000,
        )
    return Trained(model=history.model, optimizer=optimizer, history=history)


def batches_of(subject: Subject) -> Iterator[tuple[Any, Any, Any]]:
    """`(x, y, sample_weight)` of each update, in the order of the run's seed."""
    source = subject.source
    order = Order(num_examples=source.size, batch_size=subject.batch_size, seed=subject.seed, shuffle=subject.shuffle)
    if subject.augmentation is not None:
        drawn = batched(source, order, 0, subject.augmentation).take(subject.updates)
        for x, y, weight in drawn.as_numpy_iterator():
            yield x, y, None if isinstance(weight, tuple) else weight
        return
    for update in range(subject.updates):
        rows = order.indices(*divmod(update, order.steps_per_epoch)).numpy()
        weight = source.sample_weight
        yield _rows(source.examples, rows), _rows(source.labels, rows), None if weight is None else _rows(weight, rows)


def _rows(tree: Any, rows: np.ndarray) -> Any:
    return keras.tree.map_structure(lambda array: array[rows], tree)


def why_not_64_bits(subject: Subject) -> str | None:
    """Returns why the model cannot be trained in 64 bits; None if it can."""
    with in_precision("float64"):
        try:
            model = subject.make_model("float64")
            _first_gradients(subject, model)
        except TfmbError:
            raise
        except Exception as error:  # whatever the user's own layers or loss raise in 64 bits
            return f"{type(error).__name__} in 64 bits"
        narrow = [v.path for v in model.trainable_variables if v.dtype != "float64"]
        return f"{narrow[0]} has no 64 bits" if narrow else None


def _first_gradients(subject: Subject, model: KerasModel) -> list[Any]:
    x, y, weight = next(batches_of(subject))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=False), weight)
    return list(tape.gradient(loss, [v.value for v in model.trainable_variables]))


def _has_sparse_gradients(subject: Subject, model: KerasModel) -> bool:
    return any(isinstance(gradient, tf.IndexedSlices) for gradient in _first_gradients(subject, model))


def compiled_for_keras(subject: Subject, model: KerasModel, settle: Callable[[Optimizer], None]) -> str:
    """Compiles a model for Keras's own loop, with the run's loss and its optimizer's counterpart, which it names."""
    compiled, ours = read_compiled(model), subject.make_optimizer(model)
    settle(ours)
    theirs, what = keras_counterpart(ours)
    if ours.stands_for is None and _has_sparse_gradients(subject, model):
        apply_dense_gradients(theirs)
        what += " on gradients made dense (on sparse ones it counts an embedding's repeated rows apart)"
    model.compile(theirs, compiled.loss, loss_weights=compiled.loss_weights, jit_compile=False)
    return what


def values_of(model: KerasModel) -> Arrays:
    """All floating-point variables of a model, float64."""
    floats = [v for v in model.variables if keras.backend.is_float_dtype(v.dtype)]
    return [np.asarray(v.numpy(), np.float64) for v in floats]
