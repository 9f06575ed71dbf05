"""The same weights, to the bit, on any number of devices (here logical CPU devices).

python examples/same_bits.py 1
python examples/same_bits.py 2
python examples/same_bits.py 4
"""

import hashlib
import sys

import keras
from sklearn.datasets import load_digits

import tfmb

devices = int(sys.argv[1])
tfmb.configure_replicas(devices)  # before any model is built; not needed with GPUs

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")

keras.utils.set_random_seed(0)  # the same initial weights
model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
tfmb.fit(
    model, x, y, batch_size=64, epochs=5, validation_split=0.1, seed=0, virtual_replicas=4, devices=devices, verbose=2
)

digest = hashlib.sha256()
for array in model.get_weights():
    digest.update(array.tobytes())
print(f"{devices} device(s): weights {digest.hexdigest()[:12]}")
