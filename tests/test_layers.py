"""Dropout: Keras's layer outside our loop; inside it, masks of a whole batch that its parts share out."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.layers import Dropout, PartOfBatch, mask_keys, part_of_batch


def masked(
    layer: Any, inputs: Any, *, start: int = 0, update: int = 0, seed: int = 7, number: int = 0, calls: int = 1
) -> Any:
    """What the last of some calls gives for the rows from `start` on."""
    part = PartOfBatch(
        keys=mask_keys(seed, 2), update=tf.constant(update, tf.int64), start=tf.constant(start, tf.int64), order={}
    )
    part.order[id(layer)] = number
    with part_of_batch(part):
        for _ in range(calls):
            outputs = layer(inputs, training=True)
    return outputs


def ones(*shape: int) -> Any:
    return tf.ones(shape)


@pytest.mark.parametrize("noise_shape", [None, (None, 1, 5)])
def test_outside_our_loop_it_is_the_layer_of_keras(noise_shape: Any) -> None:
    ours = Dropout(0.4, noise_shape=noise_shape, seed=3)
    right = keras.layers.Dropout(0.4, noise_shape=noise_shape, seed=3)
    for _ in range(2):
        found = ours(ones(6, 4, 5), training=True).numpy()
        np.testing.assert_array_equal(found, right(ones(6, 4, 5), training=True).numpy())
        assert 0 < np.count_nonzero(found) < found.size


def test_the_block_ends_even_by_an_error() -> None:
    layer, right = Dropout(0.4, seed=3), keras.layers.Dropout(0.4, seed=3)
    part = PartOfBatch(keys=mask_keys(0, 1), update=tf.constant(0, tf.int64), start=tf.constant(0, tf.int64), order={})
    with pytest.raises(ZeroDivisionError), part_of_batch(part):
        raise ZeroDivisionError
    np.testing.assert_array_equal(layer(ones(6, 5), training=True), right(ones(6, 5), training=True))


def test_inference_leaves_the_inputs_as_they_are() -> None:
    inputs, layer = tf.random.stateless_normal([5, 7], [1, 2]), Dropout(0.5)
    np.testing.assert_array_equal(layer(inputs), inputs)
    np.testing.assert_array_equal(layer(inputs, training=False), inputs)
    part = PartOfBatch(keys=mask_keys(0, 1), update=tf.constant(0, tf.int64), start=tf.constant(0, tf.int64), order={})
    with part_of_batch(part):
        np.testing.assert_array_equal(layer(inputs, training=False), inputs)


def test_it_is_saved_and_loaded_with_a_model(tmp_path: Path) -> None:
    layer = Dropout(0.3, noise_shape=(None, 1), seed=5, name="drop")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), layer])
    with pytest.warns(UserWarning, match="drop is a tfmb.layers.Dropout: .* loads only where tfmb is imported"):
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is Dropout
    config = loaded.layers[-1].get_config()
    # Before Keras 3.13 a tuple comes back as a list.
    assert {**config, "noise_shape": tuple(config["noise_shape"])} == layer.get_config()
    np.testing.assert_array_equal(loaded(ones(2, 4)), model(ones(2, 4)))


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 12),
    widths=st.lists(st.sampled_from([1, 2, 3, 4, 5, 7, 9, 13]), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_the_parts_of_any_cut_make_up_the_mask_of_the_batch(rows: int, widths: list[int], cuts: list[int]) -> None:
    layer, inputs = Dropout(0.5), ones(rows, *widths)
    whole = masked(layer, inputs).numpy()
    bounds = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    parts = [
        masked(layer, inputs[start:stop], start=start).numpy()
        for start, stop in itertools.pairwise(bounds)
        if stop > start
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    "change", [{"update": 1}, {"seed": 8}, {"number": 1}, {"calls": 2}, {"update": 2**40}], ids=str
)
def test_every_update_seed_layer_and_call_has_a_mask_of_its_own(change: dict[str, int]) -> None:
    layer, inputs = Dropout(0.5), ones(40, 25)
    first, other = masked(layer, inputs).numpy() > 0, masked(layer, inputs, **change).numpy() > 0
    np.testing.assert_array_equal(masked(layer, inputs).numpy() > 0, first)
    assert 0.42 < np.mean(first == other) < 0.58


def test_a_seed_of_the_layer_goes_before_the_seed_of_the_run() -> None:
    layer, inputs = Dropout(0.5, seed=11), ones(10, 10)
    np.testing.assert_array_equal(masked(layer, inputs, seed=1), masked(layer, inputs, seed=2))
    np.testing.assert_array_equal(masked(layer, inputs), masked(Dropout(0.5), inputs, seed=11))


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_the_share_kept_is_near_one_minus_the_rate_and_is_scaled_up(rate: float) -> None:
    found = masked(Dropout(rate), 3.0 * ones(200, 101)).numpy()
    kept = found != 0
    spread = np.sqrt(rate * (1 - rate) / found.size)
    assert abs(kept.mean() - (1 - rate)) < 5 * spread
    np.testing.assert_allclose(found[kept], 3 / (1 - rate), rtol=1e-6)
    # No row repeats another, and no column stands out.
    assert len(np.unique(kept, axis=0)) == 200
    assert np.all(abs(kept.mean(axis=0) - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / 200))


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("width", [4, 7])
def test_graphs_and_xla_draw_the_same_masks(jit: bool, width: int) -> None:
    layer, inputs = Dropout(0.4), ones(9, width)

    @tf.function(jit_compile=jit)
    def call(update: Any, start: Any) -> Any:
        part = PartOfBatch(keys=mask_keys(7, 1), update=update, start=start, order={id(layer): 0})
        with part_of_batch(part):
            return layer(inputs, training=True)

    for update, start in ((0, 0), (3, 5)):
        found = call(tf.constant(update, tf.int64), tf.constant(start, tf.int64)).numpy()
        right = masked(layer, inputs, update=update, start=start).numpy()
        np.testing.assert_array_equal(found > 0, right > 0)
        np.testing.assert_allclose(found, right, rtol=1e-6)


def test_the_mask_is_shared_along_the_axes_of_noise_shape() -> None:
    layer = Dropout(0.5, noise_shape=(None, 1, 6))
    found = masked(layer, ones(8, 5, 6)).numpy()
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], found.shape))
    assert 0 < np.count_nonzero(found) < found.size
    np.testing.assert_array_equal(masked(layer, ones(5, 5, 6), start=3), found[3:])
    free = Dropout(0.5, noise_shape=(None, None, 6))
    np.testing.assert_array_equal(masked(free, ones(8, 5, 6)), masked(Dropout(0.5), ones(8, 5, 6)))


def test_a_noise_shape_that_fixes_the_batch_is_refused() -> None:
    layer = Dropout(0.5, noise_shape=(1, 6), name="drop")
    with pytest.raises(ConfigError, match=r"drop: .*must be None") as caught:
        layer._mask_shape(ones(8, 6))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="must be None"):
        masked(layer, ones(8, 6))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_dtype_is_kept(dtype: str) -> None:
    found = masked(Dropout(0.5, dtype=dtype), tf.ones([8, 5], dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(tf.cast(found, "float32"), masked(Dropout(0.5), ones(8, 5)))


def test_rate_0_keeps_all_and_rate_1_nothing() -> None:
    inputs = tf.random.stateless_normal([5, 7], [1, 2])
    np.testing.assert_array_equal(masked(Dropout(0.0), inputs), inputs)
    np.testing.assert_array_equal(masked(Dropout(1.0), inputs), np.zeros((5, 7)))
