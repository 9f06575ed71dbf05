"""Turns `fit`'s data arguments into pipelines: all kinds that Keras accepts, split and weighted as Keras does."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order
from tfmb.data.columns import Columns
from tfmb.data.records import Records, has_random_access
from tfmb.data.source import Source
from tfmb.errors import ConfigError
from tfmb.training.input.arrays import to_arrays
from tfmb.training.input.class_weights import check_class_weight, class_weighter, weights_of_classes
from tfmb.training.input.dataset_pipeline import DatasetPipeline
from tfmb.training.input.deferred_pipeline import DeferredPipeline
from tfmb.training.input.keras_batches import StreamPipeline, is_distributed, open_stream, stream_kind
from tfmb.training.input.pipeline import ArrayPipeline, InputPipeline, ScoredPipeline
from tfmb.training.keras_api.steps_per_execution import whole_executions
from tfmb.types import Data, Dataset

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "TrainingData",
    "batched_kind",
    "make_pipeline",
    "order_of",
    "scoring_pipeline",
    "split_validation",
    "tell_of_unused",
    "to_examples",
    "to_source",
    "train_and_validation",
    "validation_pipeline",
    "verbose_level",
]

DEFAULT_BATCH_SIZE = 32

Examples = Source | Columns


def to_source(x: Data, y: Data, sample_weight: Data = None, name: str = "x") -> Source | Records:
    """Returns the user's arrays as a `Source`, or data that is read by number as `Records`.

    Args:
        x: NumPy arrays, tensors, lists of numbers or texts, or pandas objects `[n, ...]`, in any list, tuple or dict;
            or a source of whole examples: see `Records.from_source`.
        y: the same for the targets; None for such a source, and where the model itself knows its loss.
        sample_weight: None, or weights `[n]`, by output where there are several.
        name: the name of `x` in error messages.

    Returns:
        The source. Floats have the dtype `keras.config.floatx()`, as in `fit`; other dtypes stay.

    Raises:
        ConfigError: a kind of data that is not supported.
        DataError: arrays that make no sense.
    """
    if has_random_access(x):
        if y is not None or sample_weight is not None:
            given = "sample_weight" if y is None else "y"
            raise ConfigError(f"{given} cannot be given with a {type(x).__name__}, which holds whole examples")
        return Records.from_source(x, name)
    arrays = (to_arrays(part, label) for part, label in ((x, name), (y, "y"), (sample_weight, "sample_weight")))
    return Source.from_arrays(*arrays, name=name)


def to_examples(x: Data, y: Data, sample_weight: Data = None, name: str = "x") -> Examples | Records:
    """The user's examples for training and scoring: as `to_source`, and ragged and sparse tensors as they are.

    Raises:
        ConfigError: a kind of data that is not supported, or weights that fit no output.
        DataError: arrays that make no sense.
    """
    batched_kind(x, name)
    if has_random_access(x):
        return to_source(x, y, sample_weight, name)
    parts = [to_arrays(part, label, True) for part, label in ((x, name), (y, "y"), (sample_weight, "sample_weight"))]
    _check_sample_weight(*parts[1:])
    if all(leaf is None or isinstance(leaf, np.ndarray) for leaf in keras.tree.flatten(parts)):
        return Source.from_arrays(*parts, name=name)
    return Columns(examples=parts[0], labels=parts[1], sample_weight=parts[2], name=name)


def split_validation(source: Any, validation_split: float) -> tuple[Any, Any]:
    """The first and the last `validation_split` of the rows, as `fit` cuts them (before any shuffling).

    Raises:
        ConfigError: the share is not in (0, 1), or leaves one side empty.
    """
    at = math.floor(source.size * (1.0 - validation_split))
    if not 0 < validation_split < 1 or at in (0, source.size):
        raise ConfigError(
            f"validation_split={validation_split!r} of {source.size} examples leaves no training or no validation "
            "examples: give a share between 0 and 1"
        )
    return source.rows(slice(0, at)), source.rows(slice(at, None), name=f"{source.name} (validation)")


def train_and_validation(source: Any, validation_data: Data, validation_split: float) -> tuple[Any, Source]:
    """Returns (training data, validation data): `validation_data` as it is given, or a share held out, drawn once.

    Raises:
        ConfigError: it is no pair, or the share is not between 0 and 1.
    """
    if validation_data is None:
        if not 0 < validation_split < 1:
            raise ConfigError(f"validation_split={validation_split!r} must be a share between 0 and 1")
        return source.hold_out(max(1, round(validation_split * source.size)))
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        raise ConfigError("validation_data must be (x, y) or (x, y, sample_weight)")
    x, y, sample_weight = (*validation_data, None)[:3]
    found = to_source(x, y, sample_weight, "validation_data")
    if not isinstance(found, Source):
        raise ConfigError("validation_data must be arrays")
    return source, found


@dataclass(frozen=True)
class TrainingData:
    """The data arguments of `fit`, as they were given."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    class_weight: Any = None
    batch_size: int | None = None
    shuffle: bool | str = True
    steps_per_epoch: int | None = None
    initial_epoch: int = 0
    validation_split: float = 0.0
    augmentation: Augmentation | None = None


def make_pipeline(
    data: TrainingData, seed: int, whole: bool = False, executed: int = 1
) -> tuple[InputPipeline, Source | Records | None, Examples | None]:
    """The training batches of `fit`'s arguments.

    Args:
        data: the arguments.
        seed: decides the order of the examples.
        whole: whether the model's own step takes batches apart.
        executed: the steps of an execution, which are all made as long as there is data.

    Returns:
        The batches, their source (None if the data makes batches itself), and the validation source that was split
        off, or None.

    Raises:
        ConfigError: arguments that contradict each other or are not supported.
        DataError: arrays that make no sense.
    """
    steps = whole_executions(data.steps_per_epoch, executed)
    if (kind := batched_kind(data.x)) is not None:
        return _batches_of_user(data, kind, steps, whole), None, None
    source = to_examples(data.x, data.y, data.sample_weight)
    held_out = None
    if data.validation_split:
        if isinstance(source, Records):
            raise ConfigError(f"validation_split needs arrays: give validation_data, another {type(data.x).__name__}")
        source, held_out = split_validation(source, data.validation_split)
    if data.class_weight is not None:  # for training only: validation is scored without, as in Keras
        if isinstance(source, Records):
            source = source.weighted(class_weighter(data.class_weight))
        else:
            weights = weights_of_classes(source.labels, source.sample_weight, data.class_weight)
            source = replace(source, sample_weight=weights)
    size = _batch_size(data.batch_size, source, data.steps_per_epoch)
    order = Order(num_examples=source.size, batch_size=size, seed=seed, shuffle=data.shuffle)
    source = source.records() if isinstance(source, Columns) else source
    return ArrayPipeline(source, order, steps, data.initial_epoch, data.augmentation), source, held_out


def _batches_of_user(data: TrainingData, kind: str, steps: int | None, whole: bool) -> InputPipeline:
    """Batches of data that makes them itself."""
    _refuse_beside_batches(
        kind, y=data.y, sample_weight=data.sample_weight, validation_split=data.validation_split or None,
        augment=data.augmentation,
    )  # fmt: skip
    tell_of_unused(data.batch_size, kind)
    if data.class_weight is not None:
        check_class_weight(data.class_weight)
    if isinstance(data.x, tf.data.Dataset):
        weighted = data.x if data.class_weight is None else _weighted(data.x, data.class_weight)
        return DatasetPipeline(weighted, steps, whole=whole)
    stream = open_stream(data.x, kind, "x", bool(data.shuffle), data.class_weight)
    return StreamPipeline(stream, steps, whole=whole)


def validation_pipeline(
    data: Data, batch_size: int | None, steps: int | None, whole: bool = False, executed: int = 1
) -> ScoredPipeline:
    """The validation batches of `validation_data`: anything that `x` may be, or it with `y` and `sample_weight`.

    Raises:
        ConfigError: something else.
    """
    if isinstance(data, (Source, Records, Columns)):
        return _scored(data, batch_size, steps, executed)
    if isinstance(data, (tuple, list)) and not 1 <= len(data) <= 3:
        raise ConfigError(f"validation_data has {len(data)} parts: give (x, y), (x, y, sample_weight) or x alone")
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if batched_kind(x, "validation_data") is not None:
        batch_size = None  # it is that of the training, which such data need not know

    def opened() -> InputPipeline:
        of_fit = ("validation_data", "validation_steps")
        return scoring_pipeline(x, y, sample_weight, batch_size, steps, *of_fit, whole, executed)

    if (kind := stream_kind(x)) is None:
        return opened()
    _refuse_beside_batches(kind, y=y, sample_weight=sample_weight)
    return DeferredPipeline("validation_data", kind, opened)


def scoring_pipeline(
    x: Data,
    y: Data,
    sample_weight: Data,
    batch_size: int | None,
    steps: int | None,
    name: str,
    steps_name: str,
    whole: bool = False,
    executed: int = 1,
) -> InputPipeline:
    """Batches that are scored once, in the data's own order.

    Args:
        x: as in `fit`.
        y: as in `fit`.
        sample_weight: as in `fit`.
        batch_size: None for 32, or what `steps` make of arrays.
        steps: batches; None for all.
        name: the argument that `x` came in.
        steps_name: the argument that `steps` came in.
        whole: whether the model's own step takes batches apart.
        executed: steps an execution, which are all made where there is data.

    Raises:
        ConfigError: arguments that contradict each other or are not supported.
        DataError: arrays that make no sense.
    """
    if (kind := batched_kind(x, name)) is not None:
        _refuse_beside_batches(kind, y=y, sample_weight=sample_weight)
        tell_of_unused(batch_size, kind)
        if isinstance(x, tf.data.Dataset):
            limit = whole_executions(steps, executed)
            return DatasetPipeline(x, limit, name=name, steps_name=steps_name, whole=whole)
        return StreamPipeline(open_stream(x, kind, name), whole_executions(steps, executed), steps_name, whole=whole)
    return _scored(to_examples(x, y, sample_weight, name), batch_size, steps, executed)


def order_of(source: Examples | Records, batch_size: int | None, steps: int | None) -> Order:
    """The data's own order, in batches as `scoring_pipeline` makes them."""
    size = min(_batch_size(batch_size, source, steps), source.size)
    return Order(num_examples=source.size, batch_size=size, seed=0, shuffle=False)


def verbose_level(verbose: Any) -> int:
    """Keras's `verbose` as 0, 1 or 2.

    Raises:
        ConfigError: something else.
    """
    if verbose not in ("auto", 0, 1, 2):
        raise ConfigError(f"verbose={verbose!r} must be 'auto', 0, 1 or 2")
    return 1 if verbose == "auto" else int(verbose)


def batched_kind(x: Data, name: str = "x") -> str | None:
    """Returns the name of the kind of data that comes in batches; None for examples.

    Raises:
        ConfigError: neither `fit` nor we can read it.
    """
    if isinstance(x, tf.data.Dataset):
        return "tf.data.Dataset"
    if (kind := stream_kind(x)) is not None:
        return kind
    if is_distributed(x):
        raise ConfigError(f"{name} is a {type(x).__name__}: give the tf.data.Dataset that it was made of")
    is_stream = hasattr(x, "__next__") or (
        hasattr(x, "__iter__") and not (hasattr(x, "__len__") or hasattr(x, "__array__"))
    )
    if is_stream or type(x).__name__ == "DataLoader":
        raise ConfigError(
            f"{name} is a {type(x).__name__}, which fit does not take either: give arrays, a generator, a "
            "keras.utils.PyDataset or a tf.data.Dataset"
        )
    return None


def _scored(source: Examples | Records, batch_size: int | None, steps: int | None, executed: int) -> InputPipeline:
    order = order_of(source, batch_size, steps)
    source = source.records() if isinstance(source, Columns) else source
    return ArrayPipeline(source, order, whole_executions(steps, executed))


def _batch_size(asked: int | None, source: Examples | Records, steps: int | None) -> int:
    """Returns the size that was asked for; else, as in Keras, the one that makes `steps` batches of arrays, or 32."""
    if asked is None and steps and not isinstance(source, Records):
        return math.ceil(source.size / steps)
    return DEFAULT_BATCH_SIZE if asked is None else asked


def tell_of_unused(batch_size: int | None, kind: str) -> None:
    """Warns of a `batch_size` beside data that makes its batches itself, of which Keras says nothing."""
    if batch_size is not None:
        warnings.warn(f"batch_size={batch_size} is not used: the {kind} makes its batches itself", stacklevel=3)


def _refuse_beside_batches(kind: str, **given: Any) -> None:
    for argument, value in given.items():
        if value is not None:
            raise ConfigError(f"{argument} cannot be given with a {kind}, which is batched and complete")


def _weighted(dataset: Dataset, class_weight: Data) -> Any:
    """A dataset with the classes' weights."""
    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) == 2):
        raise ConfigError("class_weight needs a dataset of (x, y), with targets and without sample weights")
    if not isinstance(spec[1], tf.TensorSpec):
        raise ConfigError("class_weight needs a single output: let the dataset yield sample weights for several")
    return dataset.map(class_weighter(class_weight, complete=True))


def _check_sample_weight(y: Data, sample_weight: Data) -> None:
    """Refuses weights of several outputs that fit none of them, as Keras does."""
    if sample_weight is None or not isinstance(y, (list, tuple, dict)):
        return
    if isinstance(sample_weight, (list, tuple, dict)):
        try:
            keras.tree.assert_same_structure(keras.tree.lists_to_tuples(y), keras.tree.lists_to_tuples(sample_weight))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                "sample_weight has another structure than y: give one array [n] for all outputs, or one for each"
            ) from error
    elif len(sample_weight.shape) != 1 and tuple(sample_weight.shape[1:]) != (1,):
        raise ConfigError("sample_weight for all of several outputs must be [n]: give one array for each output")
