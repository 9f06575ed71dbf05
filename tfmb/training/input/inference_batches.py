"""Batches for `predict_step` from the data of `tfmb.predict`, each drawn once."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras, tf
from tfmb.data.batches import batched
from tfmb.errors import ConfigError
from tfmb.training.input.data_adapter import batched_kind, order_of, tell_of_unused, to_examples
from tfmb.training.input.elements import inputs_of, without_optionals
from tfmb.training.input.first_inputs import FirstInputs, zeros_of
from tfmb.training.input.keras_batches import open_stream
from tfmb.training.keras_api.limits import whole_executions
from tfmb.training.keras_api.method_calls import begins
from tfmb.types import Data, Dataset

__all__ = ["Batches", "input_batches"]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Batches to predict.

    Attributes:
        dataset: a `tf.data.Dataset` of the inputs of `predict_step`.
        number: the number of batches; None if it is not known.
        batch_size: rows of a whole one; None if the data decides that.
        first_inputs: to build a model with.
        adapter: Keras's, which reads them; None for none.
    """

    dataset: Any
    number: int | None
    batch_size: int | None
    first_inputs: FirstInputs
    adapter: Any = None
    draws_another: bool = False

    @contextlib.contextmanager
    def drawn(self, to_the_end: Callable[[], bool]) -> Iterator[Any]:
        """An iterator of the batches, while it is used.

        Args:
            to_the_end: whether nothing broke it off.
        """
        if self.adapter is None:
            yield iter(self.dataset)
            if self.draws_another and to_the_end():
                iter(self.dataset)  # which a shuffle with a seed counts: see `DatasetPipeline.leave`
            return
        self.adapter.on_epoch_begin()
        whole = False
        try:
            yield iter(self.dataset)
            whole = to_the_end()
        finally:
            if whole:
                self.adapter.on_epoch_end()
            elif (enqueuer := getattr(self.adapter, "enqueuer", None)) is not None:
                enqueuer.stop()


def input_batches(x: Data, batch_size: int | None, steps: int | None, whole: bool, executed: int = 1) -> Batches:
    """Returns the batches of the data of `predict`.

    Args:
        x: as `predict` got it.
        batch_size: as `predict` got it.
        steps: the most batches; None for all.
        whole: whether elements stay as they are: a model's own `predict_step` may look at targets.
        executed: steps an execution, which are all made where there is data.

    Raises:
        ConfigError: a kind of data that is not supported, or batches without an end.
        DataError: arrays that make no sense.
    """
    if (kind := batched_kind(x)) is None:
        source = to_examples(x, None)
        order = order_of(source, batch_size, steps)
        steps = whole_executions(steps, executed)
        records = source.records() if hasattr(source, "records") else source
        number = min(steps or order.steps_per_epoch, order.steps_per_epoch)
        dataset = inputs_of(batched(records, order).take(number))
        return Batches(dataset=dataset, number=number, batch_size=order.batch_size, first_inputs=_first_of(dataset))
    steps = whole_executions(steps, executed)
    tell_of_unused(batch_size, kind)
    if isinstance(x, tf.data.Dataset):
        dataset, size, adapter = x, int(x.cardinality()), None
    else:
        stream = open_stream(x, kind, "x")
        dataset, size, adapter = stream.dataset, stream.size, stream.adapter
    if size == tf.data.INFINITE_CARDINALITY and steps is None:
        raise ConfigError(f"x is an infinite {kind}: give steps")
    known = steps if size < 0 else min(steps or size, size)
    dataset = without_optionals(dataset) if whole else inputs_of(dataset)
    dataset = dataset if steps is None else dataset.take(steps)

    counted = 0 <= size == known
    return Batches(
        dataset=dataset,
        number=known,
        batch_size=None,
        first_inputs=_first_of(dataset, adapter is not None),
        adapter=adapter,
        draws_another=counted,
    )


def _first_of(dataset: Dataset, is_stream: bool = False) -> FirstInputs:
    """Returns the inputs to build a model with; none drawn from a stream, for the predictions would miss them."""

    def read() -> Any:
        begins()
        for element in dataset:
            return _inputs(element)
        raise ConfigError("there is nothing to predict: the data has no batch")

    spec = _inputs(dataset.element_spec)
    return FirstInputs(spec=lambda: spec, read=(lambda: zeros_of(spec)) if is_stream else read)


def _inputs(element: Any) -> Any:
    return keras.utils.unpack_x_y_sample_weight(element)[0]
