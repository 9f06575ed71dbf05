"""Your own Keras model, in 15 lines.

python examples/own_model.py
"""

import keras
from sklearn.datasets import load_digits

import tfmb

x, y = load_digits(return_X_y=True)  # 1,797 images of 8x8 pixels in a row, and which digit each shows
x = (x / 16).astype("float32")

model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])

tfmb.fit(model, x[:1500], y[:1500], batch_size=32, epochs=10, seed=0, verbose=2)
test_loss, test_accuracy = tfmb.evaluate(model, x[1500:], y[1500:], verbose=0)
print(f"test accuracy {test_accuracy:.3f}")
