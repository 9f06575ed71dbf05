"""A variational autoencoder whose `train_step` and `test_step` are its own.

python examples/own_step_vae.py [RUN_DIR]
"""

import sys

import keras
import tensorflow as tf
from keras import layers, ops
from sklearn.datasets import load_digits

import tfmb

LATENT = 4


class Vae(keras.Model):
    """Encodes an image as a normal distribution, and decodes a draw from it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(2 * LATENT)])
        self.decoder = keras.Sequential([keras.Input((LATENT,)), layers.Dense(32, "relu"), layers.Dense(64, "sigmoid")])
        self.draws = keras.random.SeedGenerator(1)
        self.loss_mean = keras.metrics.Mean("loss")
        self.reconstruction_mean = keras.metrics.Mean("reconstruction")

    @property
    def metrics(self):
        """What each epoch resets and shows."""
        return [self.loss_mean, self.reconstruction_mean]

    def losses_of(self, x):
        """The loss of a batch, and its first part."""
        mean, log_variance = ops.split(self.encoder(x), 2, axis=-1)
        draw = mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.draws)
        reconstruction = ops.mean(ops.sum(ops.square(x - self.decoder(draw)), -1))
        divergence = -0.5 * ops.mean(ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), -1))
        return reconstruction + 0.1 * divergence, reconstruction

    def train_step(self, x):
        """One update."""
        with tf.GradientTape() as tape:
            loss, reconstruction = self.losses_of(x)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return self.shown(loss, reconstruction)

    def test_step(self, x):
        """The same losses, without an update."""
        return self.shown(*self.losses_of(x))

    def shown(self, loss, reconstruction):
        """The means since the epoch began."""
        self.loss_mean.update_state(loss)
        self.reconstruction_mean.update_state(reconstruction)
        return {metric.name: metric.result() for metric in self.metrics}


def build() -> keras.Model:
    """The compiled model."""
    model = Vae()
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    return model


if __name__ == "__main__":
    x = tf.data.Dataset.from_tensor_slices((load_digits().data / 16).astype("float32")).batch(64)
    options = tf.data.Options()
    options.deterministic = True  # so that a run can go on in the same order
    x = x.with_options(options)
    saved = {"run_dir": sys.argv[1], "resume": True} if sys.argv[1:] else {}
    history = tfmb.fit(build, x.skip(5), validation_data=x.take(5), epochs=10, seed=0, verbose=2, **saved)
    print(f"val_reconstruction {history.history['val_reconstruction'][-1]:.3f}")
