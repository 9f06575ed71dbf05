"""A conditional GAN with its own compile, two optimizers, and a callback that draws after each epoch."""

from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

keras.utils.set_random_seed(10)


class GAN(keras.Model):
    def __init__(self, discriminator, generator, size):
        super().__init__()
        self.discriminator, self.generator, self.size = discriminator, generator, size
        self.seeds = keras.random.SeedGenerator(1337)
        self.of_d, self.of_g = keras.metrics.Mean(name="d_loss"), keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.of_d, self.of_g]

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def train_step(self, data):
        images, labels = data
        rows = ops.shape(images)[0]
        drawn = keras.random.normal((rows, self.size), seed=self.seeds)
        fakes = self.generator(ops.concatenate([drawn, labels], axis=1))
        both, truth = (
            ops.concatenate([fakes, images], axis=0),
            ops.concatenate([ops.ones((rows, 1)), ops.zeros((rows, 1))], axis=0),
        )
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(truth, self.discriminator(both))
        gradients = tape.gradient(d_loss, self.discriminator.trainable_weights)
        self.d_optimizer.apply_gradients(zip(gradients, self.discriminator.trainable_weights, strict=True))
        drawn = keras.random.normal((rows, self.size), seed=self.seeds)
        with tf.GradientTape() as tape:
            g_loss = self.loss_fn(
                ops.zeros((rows, 1)), self.discriminator(self.generator(ops.concatenate([drawn, labels], axis=1)))
            )
        gradients = tape.gradient(g_loss, self.generator.trainable_weights)
        self.g_optimizer.apply_gradients(zip(gradients, self.generator.trainable_weights, strict=True))
        self.of_d.update_state(d_loss)
        self.of_g.update_state(g_loss)
        return {"d_loss": self.of_d.result(), "g_loss": self.of_g.result()}


class Monitor(keras.callbacks.Callback):
    drawn: ClassVar[list[float]] = []

    def on_epoch_end(self, epoch, logs=None):
        self.drawn.append(float(ops.mean(self.model.generator(ops.ones((3, self.model.size + 2))))))


d = keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(8), keras.layers.LeakyReLU(negative_slope=0.2), keras.layers.Dense(1)]
)
g = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(6)])
gan = GAN(d, g, 3)
gan.compile(
    d_optimizer=keras.optimizers.Adam(learning_rate=0.0003),
    g_optimizer=keras.optimizers.Adam(learning_rate=0.0003),
    loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
)
images, labels = np.random.normal(size=(48, 6)).astype("float32"), np.eye(2, dtype="float32")[np.arange(48) % 2]
data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(buffer_size=48, seed=1).batch(16)
Monitor.drawn.clear()
history = gan.fit(data, epochs=2, callbacks=[Monitor()], verbose=0)
found = [history.history, Monitor.drawn]
