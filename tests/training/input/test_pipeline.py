"""Where batches come from: epochs, steps, running out."""

from typing import Any

import numpy as np
import pytest

from tfmb.backend import keras, tf
from tfmb.data.batches import Order
from tfmb.data.source import Source
from tfmb.errors import ConfigError
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.training.input.dataset_pipeline import DatasetPipeline
from tfmb.training.input.pipeline import EpochBatches, InputPipeline

ROWS = np.arange(11)


def array_feed(steps_per_epoch: int | None = None, initial_epoch: int = 0, shuffle: bool = False) -> ArrayPipeline:
    """Five batches of two rows, the last of one; the targets are the rows' numbers."""
    source = Source.from_arrays(ROWS[:, np.newaxis] * 1.0, ROWS)
    return ArrayPipeline(
        source, Order(num_examples=11, batch_size=2, seed=4, shuffle=shuffle), steps_per_epoch, initial_epoch
    )


def dataset(rows: Any = ROWS) -> Any:
    return tf.data.Dataset.from_tensor_slices((rows[:, np.newaxis] * 1.0, rows)).batch(2)


def unknown_size() -> Any:
    return dataset().filter(lambda x, y: True)


def drawn(batches: EpochBatches) -> list[list[int]]:
    """The rows of the batches of one epoch."""
    found: list[list[int]] = []
    while batches.steps is None or len(found) < batches.steps:
        try:
            found.append(np.asarray(next(batches.iterator)[1]).tolist())
        except StopIteration:
            break
    return found


def epochs(pipeline: InputPipeline, count: int) -> list[list[list[int]]]:
    return [drawn(pipeline.epoch(epoch)) for epoch in range(count)]


PASS = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]


@pytest.mark.parametrize(
    "make", [array_feed, lambda: DatasetPipeline(dataset()), lambda: DatasetPipeline(unknown_size())],
    ids=["arrays", "dataset", "unknown size"],
)  # fmt: skip
def test_each_epoch_is_one_pass(make: Any) -> None:
    pipeline = make()
    assert epochs(pipeline, 3) == [PASS] * 3
    assert drawn(pipeline.once()) == PASS
    assert pipeline.steps in (6, None)


def test_steps_of_an_epoch_are_known_where_the_size_is() -> None:
    assert array_feed().steps == 6
    assert array_feed(4).steps == 4
    assert DatasetPipeline(dataset()).steps == 6
    assert DatasetPipeline(unknown_size()).steps is None
    assert DatasetPipeline(unknown_size(), 4).steps == 4


@pytest.mark.parametrize(
    "make", [array_feed, lambda steps: DatasetPipeline(dataset(), steps)], ids=["arrays", "dataset"]
)
def test_steps_per_epoch_go_on_where_the_last_epoch_stopped(make: Any) -> None:
    assert epochs(make(3), 4) == [PASS[:3], PASS[3:]] * 2
    assert epochs(make(6), 2) == [PASS] * 2


@pytest.mark.parametrize(
    "make", [array_feed, lambda steps: DatasetPipeline(dataset(), steps)], ids=["arrays", "dataset"]
)
def test_running_out_warns_and_shortens_the_epoch(make: Any) -> None:
    pipeline = make(4)
    assert drawn(pipeline.epoch(0)) == PASS[:4]
    with pytest.warns(UserWarning, match=r"ran out: this epoch has 2 update\(s\) and not 4"):
        assert drawn(pipeline.epoch(1)) == PASS[4:]
    assert drawn(pipeline.epoch(2)) == PASS[:4]
    with pytest.warns(UserWarning, match="ran out"):
        assert drawn(make(9).epoch(0)) == PASS


def test_repeated_dataset_does_not_run_out() -> None:
    assert epochs(DatasetPipeline(dataset().repeat(), 4), 3) == [PASS[:4], PASS[4:] + PASS[:2], PASS[2:]]


@pytest.mark.filterwarnings("ignore:the data ran out")
@pytest.mark.parametrize("steps", [None, 4])
def test_initial_epoch_has_the_order_of_a_longer_run(steps: int | None) -> None:
    longer = epochs(array_feed(steps, shuffle=True), 5)
    assert epochs(array_feed(steps, initial_epoch=3, shuffle=True), 2) == longer[3:]
    assert longer[0] != PASS[: steps or 6]


def test_rows_in_their_own_order_begin_with_the_first_at_any_epoch() -> None:
    """As in `fit`; a run that goes on finds its place."""
    pipeline = array_feed(2, initial_epoch=1)
    assert epochs(pipeline, 2) == [PASS[:2], PASS[2:4]]
    pipeline.start_at(2, 1)
    batches = pipeline.epoch(2)
    assert next(batches.iterator)[1].numpy().tolist() == PASS[3]


def test_shuffled_epochs_differ_and_hold_every_row_once() -> None:
    first, second = epochs(array_feed(shuffle=True), 2)
    assert first != second
    for found in (first, second):
        assert sorted(row for batch in found for row in batch) == ROWS.tolist()


def test_validation_begins_anew_in_the_datas_own_order() -> None:
    for pipeline in (array_feed(2, shuffle=True), DatasetPipeline(dataset(), 2)):
        drawn(pipeline.epoch(0))
        assert drawn(pipeline.once()) == drawn(pipeline.once()) == PASS[:2]
    assert drawn(array_feed(shuffle=True).once()) == PASS


def test_array_feed_leaves_training_where_it_was_when_it_is_scored() -> None:
    pipeline = array_feed(3)
    drawn(pipeline.epoch(0))
    drawn(pipeline.once())
    assert drawn(pipeline.epoch(1)) == PASS[3:]


def test_first_inputs_are_one_of_the_same_structure() -> None:
    inputs = {"a": [np.ones((3, 2)), np.zeros((3, 1))], "b": np.arange(3)}
    pipeline = ArrayPipeline(Source.from_arrays(inputs, np.arange(3)), Order(num_examples=3, batch_size=2, seed=0))
    example = pipeline.first_inputs().numbers()
    x, *_ = next(pipeline.epoch(0).iterator)
    keras.tree.assert_same_structure(example, x)
    assert [part.shape[0] for part in keras.tree.flatten(example)] == [1, 1, 1]
    np.testing.assert_array_equal(DatasetPipeline(dataset()).first_inputs().numbers(), [[0.0]])


def test_sample_weights_stand_third() -> None:
    rows = ROWS * 1.0
    source = Source.from_arrays(rows, ROWS, rows * 10)
    pipeline = ArrayPipeline(source, Order(num_examples=11, batch_size=2, seed=0, shuffle=False))
    assert np.asarray(next(pipeline.epoch(0).iterator)[2]).tolist() == [0.0, 10.0]
    assert next(array_feed().epoch(0).iterator)[2] == ()
    weighted = DatasetPipeline(tf.data.Dataset.from_tensors((rows, ROWS, rows * 10)))
    np.testing.assert_array_equal(next(weighted.epoch(0).iterator)[2], rows * 10)
    assert next(DatasetPipeline(dataset()).epoch(0).iterator)[2] == ()


def test_infinite_dataset_needs_steps() -> None:
    with pytest.raises(ConfigError, match=r"\Ax is an infinite dataset: give steps_per_epoch\Z"):
        DatasetPipeline(dataset().repeat())
    with pytest.raises(ConfigError, match=r"\Avalidation_data is an infinite dataset: give validation_steps\Z"):
        DatasetPipeline(dataset().repeat(), name="validation_data", steps_name="validation_steps")


@pytest.mark.parametrize(("element", "words"), [((1.0, 2.0, 3.0, 4.0), "yields 4 parts")], ids=["four"])
def test_elements_that_are_no_batch_are_refused_in_one_line(element: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DatasetPipeline(tf.data.Dataset.from_tensors(element))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
