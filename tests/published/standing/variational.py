"""A variational autoencoder with its own step, trackers and a sampling layer."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

keras.utils.set_random_seed(9)


class Sampling(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.generator = keras.random.SeedGenerator(1337)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(shape=ops.shape(mean), seed=self.generator)
        return mean + ops.exp(0.5 * log_variance) * noise


class VAE(keras.Model):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.total, self.divergence = keras.metrics.Mean(name="loss"), keras.metrics.Mean(name="kl_loss")

    @property
    def metrics(self):
        return [self.total, self.divergence]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_variance, code = self.encoder(data)
            error = ops.mean(ops.sum(keras.losses.binary_crossentropy(data, self.decoder(code)), axis=(1, 2)))
            divergence = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
            divergence = ops.mean(ops.sum(divergence, axis=1))
            total = error + divergence
        gradients = tape.gradient(total, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.total.update_state(total)
        self.divergence.update_state(divergence)
        return {metric.name: metric.result() for metric in self.metrics}


inputs = keras.Input((8, 8, 1))
x = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(inputs))
mean, log_variance = keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)
encoder = keras.Model(inputs, [mean, log_variance, Sampling()([mean, log_variance])])
codes = keras.Input((2,))
x = keras.layers.Reshape((8, 8, 1))(keras.layers.Dense(64, activation="sigmoid")(codes))
model = VAE(encoder, keras.Model(codes, x))
model.compile(optimizer=keras.optimizers.Adam())
history = model.fit(np.random.random((64, 8, 8, 1)), epochs=2, batch_size=16, shuffle=False, verbose=0)
found = [history.history, encoder.predict(np.ones((4, 8, 8, 1)), verbose=0)[0].ravel().tolist()]
