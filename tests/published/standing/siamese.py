"""Pairs of images through one network, with a distance as a layer and a loss of one's own."""

import keras
import numpy as np
from keras import ops

keras.utils.set_random_seed(8)
left, right = np.random.random((2, 64, 10, 10, 1)).astype("float32")
labels = np.random.randint(0, 2, 64).astype("float32")
inputs = keras.Input((10, 10, 1))
x = keras.layers.AveragePooling2D(2)(
    keras.layers.Conv2D(4, 3, activation="tanh")(keras.layers.BatchNormalization()(inputs))
)
tower = keras.Model(inputs, keras.layers.Dense(6, activation="tanh")(keras.layers.Flatten()(x)))
one, other = keras.Input((10, 10, 1)), keras.Input((10, 10, 1))


def distance(vectors):
    a, b = vectors
    return ops.sqrt(ops.maximum(ops.sum(ops.square(a - b), axis=1, keepdims=True), keras.backend.epsilon()))


merged = keras.layers.Lambda(distance, output_shape=(1,))([tower(one), tower(other)])
model = keras.Model(
    [one, other], keras.layers.Dense(1, activation="sigmoid")(keras.layers.BatchNormalization()(merged))
)


def contrastive(margin=1):
    def contrastive_loss(y_true, y_pred):
        square, apart = ops.square(y_pred), ops.square(ops.maximum(margin - y_pred, 0))
        return ops.mean((1 - y_true) * square + y_true * apart)

    return contrastive_loss


model.compile(loss=contrastive(margin=1), optimizer="RMSprop", metrics=["accuracy"])
held = ([left[48:], right[48:]], labels[48:])
history = model.fit(
    [left[:48], right[:48]], labels[:48], validation_data=held, batch_size=16, epochs=2, shuffle=False, verbose=0
)
found = [history.history, model.evaluate(*held, verbose=0)]
