"""KerasHub's classifiers, with a tiny random backbone and their preprocessor, are what they are with Keras."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras

hub = pytest.importorskip("keras_hub", reason="needs the extra hub: pip install tfmb[hub]")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:.*`compile\\(\\)` was not called as part of model loading",
        "ignore:Skipping variable loading for optimizer",
        "ignore:.*deprecated",
        "ignore:.*data ran out",
        "ignore:.*whose order is its own",
    ),
]
models = hub.models
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "this",
    "film",
    "is",
    "was",
    "not",
    "very",
    "good",
    "bad",
    "##ly",
]
TEXTS = [
    "this film was good",
    "the film was bad",
    "this is very good",
    "not good",
    "very bad",
    "good film",
    "badly",
] * 2
LABELS = np.array([1, 0, 1, 0, 0, 1, 0] * 2)
_random = np.random.default_rng(0)
IMAGES, KINDS = _random.integers(0, 256, (12, 20, 18, 3)).astype("uint8"), np.arange(12) % 3


def text(dropout: float = 0.1) -> Any:
    tokenizer = models.BertTokenizer(vocabulary=WORDS, lowercase=True)
    backbone = models.BertBackbone(
        vocabulary_size=len(WORDS), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16, max_sequence_length=8,
        dropout=dropout,
    )  # fmt: skip
    preprocessor = models.BertTextClassifierPreprocessor(tokenizer, sequence_length=8)
    return models.BertTextClassifier(backbone, num_classes=2, preprocessor=preprocessor, dropout=dropout)


def scaled(kind: Any, converter: Any) -> Any:
    """An image classifier's preprocessor, that makes 16 by 16 of images and brings pixels to [0, 1]."""
    return kind(converter(image_size=(16, 16), scale=1 / 255))


def resnet(dropout: float = 0.0) -> Any:
    del dropout  # which it has none of
    backbone = models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block", image_shape=(16, 16, 3),
    )  # fmt: skip
    made = scaled(models.ResNetImageClassifierPreprocessor, hub.layers.ResNetImageConverter)
    return models.ResNetImageClassifier(backbone, num_classes=3, preprocessor=made)


def vit(dropout: float = 0.1) -> Any:
    backbone = models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=(8, 8), num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16,
        dropout_rate=dropout,
    )  # fmt: skip
    made = scaled(models.ViTImageClassifierPreprocessor, hub.layers.ViTImageConverter)
    return models.ViTImageClassifier(backbone, num_classes=3, preprocessor=made)


DATA: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "text": (text, TEXTS, LABELS),
    "ResNet": (resnet, IMAGES, KINDS),
    "ViT": (vit, IMAGES, KINDS),
}


def built(name: str, **given: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = DATA[name][0](**given)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Attention's bias of the keys has a gradient of roundings, which a small epsilon would make steps of.
    model.compile(keras.optimizers.Adam(0.01, epsilon=0.001), loss, metrics=["accuracy"])
    return model


def by_keras(model: Any, method: str, *data: Any, **given: Any) -> Any:
    return getattr(model, method)(*data, verbose=0, **given)


def by_tfmb(model: Any, method: str, *data: Any, **given: Any) -> Any:
    return getattr(tfmb, method)(model, *data, verbose=0, **given)


def patched(model: Any, method: str, *data: Any, **given: Any) -> Any:
    with tfmb.patch_keras(strict=True):
        return by_keras(model, method, *data, **given)


def outcome(call: Callable[..., Any], name: str, file: Path, **given: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and what it comes to: trained twice, saved and loaded between."""
    _, x, y = DATA[name]
    model = built(name)
    known = {"batch_size": 4, "epochs": 2, "shuffle": False, **given}
    first = call(model, "fit", x, y, validation_data=(x[:5], y[:5]), **known).history
    model.save(file)
    loaded = keras.models.load_model(file)
    again = call(model, "fit", x, y, **known, callbacks=[keras.callbacks.EarlyStopping("loss")]).history
    return model, {
        **{f"first {key}": values for key, values in first.items()},
        **{f"again {key}": values for key, values in again.items()},
        "scores": call(model, "evaluate", x, y, batch_size=4),
        "outputs": call(model, "predict", x, batch_size=4),
        "loaded": call(loaded, "predict", x, batch_size=4),
        "updates": int(model.optimizer.iterations.numpy()),
    }


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("call", [by_tfmb, patched], ids=["tfmb", "patch_keras"])
def test_a_classifier_is_what_it_is_with_keras(name: str, call: Callable[..., Any], tmp_path: Path) -> None:
    theirs, right = outcome(by_keras, name, tmp_path / "theirs.keras")
    ours, found = outcome(call, name, tmp_path / "ours.keras")
    assert list(found) == list(right)
    for key, value in right.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    x = DATA[name][1]
    loaded = keras.models.load_model(tmp_path / "ours.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), right["loaded"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["text", "ViT"])
def test_a_classifier_is_the_same_in_batches_that_are_cut(name: str) -> None:
    _, x, y = DATA[name]
    histories = []
    for given in (dict[str, Any](), {"virtual_replicas": 2}):
        model = built(name, dropout=0.0)
        history = tfmb.fit(model, x, y, 4, 2, verbose=0, shuffle=False, validation_data=(x[:5], y[:5]), **given)
        histories.append(history.history)
    for key, values in histories[0].items():
        np.testing.assert_allclose(histories[1][key], values, rtol=1e-4, atol=1e-5, err_msg=key)
