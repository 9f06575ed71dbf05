"""Several workers: the same script in every process, the same weights in the end, to the bit.

tfmb launch --workers 2 -- python examples/workers.py
python examples/workers.py                                  # one process: the same SHA-256
"""

import hashlib

import keras
from sklearn.datasets import load_digits

import tfmb

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")


def build():
    # Called in the strategy's scope, which several workers need. The seed below decides the initial weights.
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


# `tfmb launch` tells each process by TF_CONFIG who it is. Every worker reads all the data and trains on its share.
history = tfmb.fit(build, x, y, batch_size=64, epochs=3, seed=0, virtual_replicas=2, verbose=0)

digest = hashlib.sha256()
for array in history.model.get_weights():
    digest.update(array.tobytes())
print(f"accuracy {history.history['accuracy'][-1]:.4f}, weights {digest.hexdigest()[:12]}")
