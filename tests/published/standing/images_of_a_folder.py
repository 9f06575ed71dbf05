"""Images that are read from folders, augmented in the data, and a network with residuals and batch normalization."""

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
folder = pathlib.Path(tempfile.mkdtemp())
for name in ("cats", "dogs"):
    (folder / name).mkdir()
    for number in range(20):
        keras.utils.save_img(folder / name / f"{number}.png", np.random.random((16, 16, 3)))
options = {"validation_split": 0.2, "subset": "both", "seed": 1337, "image_size": (16, 16), "batch_size": 8}
train, held = keras.utils.image_dataset_from_directory(folder, verbose=False, **options)
flip = keras.layers.RandomFlip("horizontal", seed=1)
train = train.map(lambda image, label: (flip(image, training=True), label)).prefetch(tf.data.AUTOTUNE)

inputs = keras.Input((16, 16, 3))
x = keras.layers.Rescaling(1.0 / 255)(inputs)
x = before = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, padding="same")(x))
x = keras.layers.SeparableConv2D(8, 3, padding="same")(keras.layers.Activation("relu")(x))
x = keras.layers.add([keras.layers.BatchNormalization()(x), before])
x = keras.layers.Dropout(0.25)(keras.layers.GlobalAveragePooling2D()(x))
model = keras.Model(inputs, keras.layers.Dense(1)(x))
model.compile(
    optimizer=keras.optimizers.Adam(3e-4),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy(name="acc")],
)
saving = keras.callbacks.ModelCheckpoint(str(folder / "save_at_{epoch}.keras"))
history = model.fit(train, epochs=2, callbacks=[saving], validation_data=held, verbose=0)
again = keras.models.load_model(folder / "save_at_2.keras")
found = [history.history, again.evaluate(held, verbose=0), sorted(path.name for path in folder.glob("*.keras"))]
