"""Small images are made larger; a callback predicts at the ends of epochs and the best weights come back."""

import tempfile
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(16)
large = np.random.random((24, 12, 12, 1)).astype("float32")
data = tf.data.Dataset.from_tensor_slices(large).batch(8)
data = data.map(lambda image: (tf.image.resize(image, [4, 4], method="area"), image)).prefetch(buffer_size=8)


class Watch(keras.callbacks.Callback):
    seen: ClassVar[list[float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.psnr = []

    def on_test_batch_end(self, batch, logs=None):
        self.psnr.append(10 * np.log10(1 / logs["loss"]))

    def on_epoch_end(self, epoch, logs=None):
        upscaled = self.model.predict(large[:1, ::3, ::3], verbose=0)
        self.seen.extend([float(np.mean(self.psnr)), float(upscaled.mean())])


inputs = keras.Input((None, None, 1))
x = keras.layers.Conv2D(9, 3, padding="same", kernel_initializer="orthogonal", activation="relu")(inputs)
x = keras.layers.Conv2D(9, 3, padding="same")(x)
x = keras.layers.Lambda(lambda given: tf.nn.depth_to_space(given, 3), output_shape=(None, None, 1))(x)
model = keras.Model(inputs, x)
path = tempfile.mkdtemp() + "/checkpoint.weights.h5"
saves = keras.callbacks.ModelCheckpoint(path, save_weights_only=True, monitor="loss", mode="min", save_best_only=True)
model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.001), loss=keras.losses.MeanSquaredError())
Watch.seen.clear()
history = model.fit(data, epochs=2, callbacks=[Watch(), saves], validation_data=data, verbose=0)
model.load_weights(path)
found = [history.history, Watch.seen, model.evaluate(data, verbose=0)]
