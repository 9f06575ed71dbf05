"""The script for a fresh process, in this one: rows that it makes, texts, and PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.serving import run_saved_model


def answers(folder: Path, scratch: Path, **functions: Any) -> dict[str, dict[str, np.ndarray]]:
    """What the script leaves in `scratch` of a SavedModel with these signatures."""
    tf.saved_model.save(tf.Module(), str(folder), signatures=functions)
    scratch.mkdir()
    run_saved_model.main(str(folder), str(scratch))
    found = {}
    for path in scratch.iterdir():
        with np.load(path, allow_pickle=False) as arrays:
            found[path.stem] = dict(arrays.items())
    return found


def test_rows_are_made_and_texts_are_answered(tmp_path: Path) -> None:
    spec = tf.TensorSpec([None, 2], tf.string, name="words")
    twice = tf.function(lambda words: {"twice": words + words}).get_concrete_function(words=spec)
    found = answers(tmp_path / "saved", tmp_path / "scratch", serving_default=twice)
    assert set(found) == {"inputs", "outputs"}
    assert found["inputs"]["words"].tolist() == [[b"text"] * 2] * 4
    assert found["outputs"]["twice"].tolist() == [[b"texttext"] * 2] * 4


@pytest.mark.parametrize("rows", [None, 3])
def test_images_are_given_as_files_too(rows: int | None, tmp_path: Path) -> None:
    def mean(image: Any) -> dict[str, Any]:
        return {"mean": tf.reduce_mean(tf.cast(image, tf.float32), [1, 2, 3])}

    def mean_of_files(image_bytes: Any) -> dict[str, Any]:
        return mean(tf.map_fn(lambda f: tf.io.decode_png(f, 1), image_bytes, fn_output_signature=tf.uint8))

    images = tf.TensorSpec([rows, 5, 5, 1], tf.uint8, name="image")
    files = tf.TensorSpec([rows], tf.string, name="image_bytes")
    found = answers(
        tmp_path / "saved",
        tmp_path / "scratch",
        serving_default=tf.function(mean).get_concrete_function(image=images),
        serve_bytes=tf.function(mean_of_files).get_concrete_function(image_bytes=files),
    )
    assert found["inputs"]["image"].shape == (rows or 4, 5, 5, 1)
    assert found["bytes"]["mean"].tolist() == found["whole"]["mean"].tolist() == found["outputs"]["mean"].tolist()
