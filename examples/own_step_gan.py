"""A GAN with two optimizers in its own `train_step`; a run that is stopped goes on where it was.

python examples/own_step_gan.py [RUN_DIR]
"""

import sys

import keras
import tensorflow as tf
from keras import layers, ops
from sklearn.datasets import load_digits

import tfmb

NOISE = 8


class Gan(keras.Model):
    """A generator of digits, and a discriminator that tells them from drawn ones."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminator = keras.Sequential(
            [keras.Input((64,)), layers.Dense(64), layers.LeakyReLU(0.2), layers.Dropout(0.3, seed=1), layers.Dense(1)]
        )
        self.generator = keras.Sequential(
            [keras.Input((NOISE,)), layers.Dense(64, "relu"), layers.BatchNormalization(), layers.Dense(64, "sigmoid")]
        )
        self.noise = keras.random.SeedGenerator(2)
        self.d_loss, self.g_loss = keras.metrics.Mean("d_loss"), keras.metrics.Mean("g_loss")

    def compile(self, d_optimizer, g_optimizer, loss):
        """Takes two optimizers."""
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_of = d_optimizer, g_optimizer, loss

    @property
    def metrics(self):
        """What each epoch resets and shows."""
        return [self.d_loss, self.g_loss]

    def train_step(self, real):
        """An update of the discriminator, then one of the generator."""
        count = ops.shape(real)[0]
        ones, zeros = ops.ones((count, 1)), ops.zeros((count, 1))
        made = self.generator(keras.random.normal((count, NOISE), seed=self.noise), training=True)
        with tf.GradientTape() as tape:
            found = self.discriminator(ops.concatenate([real, made]), training=True)
            d_loss = self.loss_of(ops.concatenate([ones, zeros]), found)
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply(tape.gradient(d_loss, weights), weights)

        noise = keras.random.normal((count, NOISE), seed=self.noise)
        with tf.GradientTape() as tape:
            g_loss = self.loss_of(ones, self.discriminator(self.generator(noise, training=True), training=True))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)

        self.d_loss.update_state(d_loss)
        self.g_loss.update_state(g_loss)
        return {"d_loss": self.d_loss.result(), "g_loss": self.g_loss.result()}


def build() -> keras.Model:
    """The compiled model."""
    model = Gan()
    model.compile(
        d_optimizer=keras.optimizers.Adam(1e-3, beta_1=0.5),
        g_optimizer=keras.optimizers.Adam(2e-3, beta_1=0.5),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


if __name__ == "__main__":
    x = (load_digits().data / 16).astype("float32")
    saved = {"run_dir": sys.argv[1], "resume": True} if sys.argv[1:] else {}
    history = tfmb.fit(build, x, batch_size=64, epochs=5, seed=0, verbose=2, **saved)
    print(f"d_loss {history.history['d_loss'][-1]:.3f}, g_loss {history.history['g_loss'][-1]:.3f}")
