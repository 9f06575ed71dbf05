"""Data with an order of its own, read by Keras's data adapters: generators, `PyDataset`, PyTorch's and Grain's.

Such data give batches in the order that they choose, mostly once. An imitation of how Keras reads them would differ in
what it draws when: how far it looks ahead for shapes, when workers start, what a second epoch sees.
"""

import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras.src.trainers import data_adapters

from tfmb.backend import keras, tf
from tfmb.distribution.strategy import is_multi_worker
from tfmb.errors import ConfigError
from tfmb.training.input.dataset_pipeline import DatasetPipeline
from tfmb.training.input.elements import inputs_in
from tfmb.training.input.first_inputs import FirstInputs, zeros_of
from tfmb.training.input.pipeline import EpochBatches, InputPipeline, ScoredPipeline
from tfmb.training.keras_api.method_calls import begins
from tfmb.types import Data, Strategy

__all__ = [
    "DeferredPipeline",
    "Stream",
    "StreamPipeline",
    "is_distributed",
    "open_stream",
    "refuse_own_order",
    "stream_kind",
    "warn_of_own_order",
]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Batches in an order of their own.

    Attributes:
        kind: the name of the kind of data.
        name: the argument that it came in.
        adapter: Keras's, which reads it.
        dataset: the adapter's `tf.data.Dataset`; every iterator of it asks the adapter anew.
        size: batches of a pass; `tf.data`'s constants where it is unknown or infinite.
    """

    kind: str
    name: str
    adapter: Any
    dataset: Any
    size: int


def stream_kind(x: Data) -> str | None:
    """Returns the name of the kind of data with an order of its own; None for any other."""
    if isinstance(x, types.GeneratorType):
        return "generator"
    if isinstance(x, keras.utils.PyDataset):
        return "PyDataset"
    if data_adapters.is_torch_dataloader(x):
        return "PyTorch DataLoader"
    if data_adapters.is_grain_dataset(x):
        return "Grain dataset"
    if isinstance(x, data_adapters.data_adapter.DataAdapter):
        return "Keras data adapter"
    return None


def is_distributed(x: Data) -> bool:
    """Whether it is a dataset that a strategy has shared out."""
    return bool(data_adapters.is_tf_dataset(x)) and not isinstance(x, tf.data.Dataset)


def open_stream(x: Data, kind: str, name: str, shuffle: bool = False, class_weight: Data = None) -> Stream:
    """Reads as much of the data as Keras looks at for the shapes of its batches.

    Args:
        x: the data.
        kind: of `stream_kind`.
        name: the argument that it came in.
        shuffle: whether a `PyDataset` gives its batches in a new order each epoch, which Python's `random` draws.
        class_weight: of a `PyDataset`'s targets; None for none.

    Raises:
        ConfigError: Keras refuses it.
    """
    if class_weight is not None and kind != "PyDataset":
        raise ConfigError(f"class_weight cannot be given with a {kind}: let it yield (x, y, sample_weight)")
    if kind != "PyDataset":
        begins()  # the first batch of a generator is taken from it
    try:
        endless = kind == "PyDataset" and x.num_batches is None
        shuffle = shuffle and kind == "PyDataset" and not endless
        adapter = data_adapters.get_data_adapter(x, shuffle=shuffle, class_weight=class_weight)
        dataset = adapter.get_tf_dataset()
    except IndexError as error:  # Keras 3.14, of its list of the first batches
        raise ConfigError(f"{name} is a {kind} that cannot be read: it gives no batch") from error
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"{name} is a {kind} that cannot be read: {' '.join(str(error).split())}") from error
    size = tf.data.INFINITE_CARDINALITY if endless else tf.data.UNKNOWN_CARDINALITY
    if adapter.num_batches is not None:
        size = adapter.num_batches
    return Stream(kind=kind, name=name, adapter=adapter, dataset=dataset, size=size)


class StreamPipeline(DatasetPipeline):
    """Batches of a stream, epoch by epoch as in `keras.Model.fit`.

    Args:
        stream: the batches.
        steps_per_epoch: None for a pass over the data; otherwise the next epoch goes on where one stopped.
        steps_name: the argument that limits it.
        whole: see `DatasetPipeline`.

    Raises:
        ConfigError: it is infinite and there is no limit.
    """

    def __init__(
        self, stream: Stream, steps_per_epoch: int | None = None, steps_name: str = "", whole: bool = False
    ) -> None:
        self.kind = stream.kind
        # It reads ahead by itself, as far as is right for it.
        super().__init__(
            stream.dataset, steps_per_epoch, stream.name, steps_name, size=stream.size, ahead=0, whole=whole
        )
        self.stream = stream
        self._was_read = self._has_ended = False

    def first_inputs(self) -> FirstInputs:
        """See `InputPipeline`; zeros where a shape is not known, for none may be drawn."""
        spec = inputs_in(self.spec()[0])
        return FirstInputs(spec=lambda: spec, read=lambda: zeros_of(spec))

    def epoch(self, epoch: int) -> EpochBatches:
        """See `InputPipeline`."""
        if not self._was_read:
            self.stream.adapter.on_epoch_end()  # which `fit` calls before the first epoch too
        self._was_read = True
        self.stream.adapter.on_epoch_begin()
        return super().epoch(epoch)

    def once(self) -> EpochBatches:
        """Gives one pass, as `evaluate` makes it: a generator's pass is its remaining batches."""
        self.stream.adapter.on_epoch_end()
        self.stream.adapter.on_epoch_begin()
        self._tell_of_the_end()
        return super().once()

    def ended(self) -> None:
        """See `InputPipeline`."""
        super().ended()
        self._has_ended = True

    def leave(self, whole: bool) -> None:
        """See `InputPipeline`."""
        if whole:
            self.stream.adapter.on_epoch_end()
            self._has_ended = self._has_ended or self._steps_per_epoch is None
        elif (enqueuer := getattr(self.stream.adapter, "enqueuer", None)) is not None:
            enqueuer.stop()

    def start_at(self, epoch: int, step: int, between: object = None) -> None:
        """See `InputPipeline`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(_cannot_go_back(self.stream.name, self.stream.kind))

    def _next_epoch(self) -> EpochBatches:
        if self._iterator is None:
            self._tell_of_the_end()
        return super()._next_epoch()

    def _tell_of_the_end(self) -> None:
        if self._has_ended and self.stream.kind == "generator":
            warnings.warn(
                f"{self._name} is a generator that has ended: from here on a pass has its first batches alone, as in "
                "fit; give a steps_per_epoch that it lasts for, or a tf.data.Dataset or PyDataset",
                stacklevel=2,
            )


class DeferredPipeline(ScoredPipeline):
    """A pipeline that is made when it is first asked for batches.

    Keras looks at the first batches of validation data after the first epoch. Where data draw from Python's or NumPy's
    generators, or count how often they were read, opening them before would change the training's batches.

    Args:
        name: the argument that the data came in.
        kind: the name of the kind of data.
        open_pipeline: makes the pipeline.
    """

    def __init__(self, name: str, kind: str, open_pipeline: Callable[[], ScoredPipeline]) -> None:
        self.name, self.kind = name, kind
        self._open = open_pipeline
        self._pipeline: ScoredPipeline | None = None

    def spec(self) -> object:
        """See `InputPipeline`; opens the data."""
        return self._opened().spec()

    def once(self) -> EpochBatches:
        """See `InputPipeline`."""
        return self._opened().once()

    def leave(self, whole: bool) -> None:
        """See `InputPipeline`."""
        if self._pipeline is not None:
            self._pipeline.leave(whole)

    def _opened(self) -> ScoredPipeline:
        if self._pipeline is None:
            self._pipeline = self._open()
            self._pipeline.static = self.static
        return self._pipeline


def refuse_own_order(x: Data, strategy: Strategy, resume: bool, restores: bool) -> None:
    """Refuses data with an order of its own where one must be given or gone back in, before any of it is read.

    Args:
        x: as in `fit`.
        strategy: where.
        resume: whether the run may be resumed.
        restores: whether the training may go back to a checkpoint.

    Raises:
        ConfigError: so it is.
    """
    if (kind := stream_kind(x)) is None:
        return
    if resume or restores:
        raise ConfigError(f"{'resume=True' if resume else 'on_divergence=restore'}: {_cannot_go_back('x', kind)}")
    if is_multi_worker(strategy):
        raise ConfigError(
            f"x is a {kind}, and each worker would get other batches from it: give arrays, or a tf.data.Dataset that "
            "is declared deterministic"
        )


def warn_of_own_order(pipeline: InputPipeline, validation: ScoredPipeline | None, run_dir: Any, parts: Any) -> None:
    """Warns once of the features that a training lacks because its data has an order of its own.

    Args:
        pipeline: of the training.
        validation: of the validation, or None.
        run_dir: the run's directory, or None.
        parts: V, if bits must not depend on the number of devices; else None.
    """
    streams: list[Stream | DeferredPipeline] = [
        *([pipeline.stream] if isinstance(pipeline, StreamPipeline) else []),
        *([validation] if isinstance(validation, DeferredPipeline) else []),
    ]
    if streams and (run_dir is not None or parts is not None):
        stream = streams[0]
        without = [
            *(["the run cannot be gone on with"] if run_dir is not None and stream.name == "x" else []),
            *(["the same bits need the same batches from it"] if parts is not None else []),
        ]
        warnings.warn(
            f"{stream.name} is a {stream.kind}, whose order is its own and not the seed's"
            + "".join(f"; {what}" for what in without),
            stacklevel=3,
        )


def _cannot_go_back(name: str, kind: str) -> str:
    return (
        f"{name} is a {kind}, and nothing says that it gives the same batches again: give arrays, a "
        "source of examples by number, or a tf.data.Dataset that is declared deterministic"
    )
