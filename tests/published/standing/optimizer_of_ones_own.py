"""A subclass of an optimizer that centers each gradient before it is applied."""

import keras
import numpy as np
from keras import ops

keras.utils.set_random_seed(20)


class Centered(keras.optimizers.RMSprop):
    def apply(self, grads, trainable_variables=None):
        grads = [
            g - ops.mean(g, axis=list(range(len(g.shape) - 1)), keepdims=True) if len(g.shape) > 1 else g for g in grads
        ]
        return super().apply(grads, trainable_variables)


x, y = np.random.random((64, 10)).astype("float32"), np.random.randint(0, 2, 64)
given = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
found = []
for optimizer in (keras.optimizers.RMSprop(learning_rate=1e-3), Centered(learning_rate=1e-3)):
    keras.utils.set_random_seed(20)
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")])
    model.compile(loss="binary_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    found.append(model.fit(x, y, **given).history)
