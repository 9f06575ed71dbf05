"""An encoder is trained by a contrastive loss, frozen, and a classifier is trained on it."""

import keras
import numpy as np
from keras import ops

keras.utils.set_random_seed(12)


class SupervisedContrastiveLoss(keras.losses.Loss):
    def __init__(self, temperature=1, name=None):
        super().__init__(name=name)
        self.temperature = temperature

    def call(self, labels, feature_vectors):
        normed = keras.utils.normalize(feature_vectors, axis=1, order=2)
        logits = ops.divide(ops.matmul(normed, ops.transpose(normed)), self.temperature)
        same = ops.cast(ops.equal(ops.reshape(labels, (-1, 1)), ops.reshape(labels, (1, -1))), "float32")
        same = same / ops.sum(same, axis=1, keepdims=True)
        return ops.mean(ops.sum(-same * ops.log_softmax(logits, axis=1), axis=1))


x, y = np.random.normal(size=(64, 8)).astype("float32"), np.random.randint(0, 3, 64)
inputs = keras.Input((8,))
encoder = keras.Model(inputs, keras.layers.Dense(6, "relu")(keras.layers.BatchNormalization()(inputs)), name="encoder")
inputs = keras.Input((8,))
projector = keras.Model(inputs, keras.layers.Dense(4, activation="relu")(encoder(inputs)))
projector.compile(optimizer=keras.optimizers.Adam(0.001), loss=SupervisedContrastiveLoss(0.05))
given = {"batch_size": 16, "shuffle": False, "verbose": 0}
found = [projector.fit(x=x, y=y, epochs=2, **given).history]
for layer in encoder.layers:
    layer.trainable = False
inputs = keras.Input((8,))
features = keras.layers.Dropout(0.5)(encoder(inputs))
classifier = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(features))
classifier.compile(
    optimizer=keras.optimizers.Adam(0.001),
    loss=keras.losses.SparseCategoricalCrossentropy(),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
)
before = [weight.copy() for weight in encoder.get_weights()]
found += [classifier.fit(x=x, y=y, epochs=2, **given).history, classifier.evaluate(x, y, verbose=0)]
found += [all(np.array_equal(one, other) for one, other in zip(before, encoder.get_weights(), strict=True))]
