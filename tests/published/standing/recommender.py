"""Embeddings of users and films in a subclassed model, with regularized tables."""

import keras
import numpy as np
from keras import ops

keras.utils.set_random_seed(4)


class Recommender(keras.Model):
    def __init__(self, users, films, size):
        super().__init__()
        options = {"embeddings_initializer": "he_normal", "embeddings_regularizer": keras.regularizers.l2(1e-3)}
        self.user, self.user_bias = keras.layers.Embedding(users, size, **options), keras.layers.Embedding(users, 1)
        self.film, self.film_bias = keras.layers.Embedding(films, size, **options), keras.layers.Embedding(films, 1)

    def call(self, inputs):
        user, film = self.user(inputs[:, 0]), self.film(inputs[:, 1])
        dot = ops.sum(user * film, axis=1, keepdims=True)
        return ops.nn.sigmoid(dot + self.user_bias(inputs[:, 0]) + self.film_bias(inputs[:, 1]))


x = np.stack([np.random.randint(0, 12, 80), np.random.randint(0, 20, 80)], axis=1)
y = np.random.random(80)
model = Recommender(12, 20, 4)
model.compile(loss=keras.losses.BinaryCrossentropy(), optimizer=keras.optimizers.Adam(learning_rate=0.001))
history = model.fit(x[:64], y[:64], batch_size=16, epochs=2, shuffle=False, validation_data=(x[64:], y[64:]), verbose=0)
found = [history.history, model.predict(x[:5], verbose=0).ravel().tolist()]
