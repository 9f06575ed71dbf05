"""Ask which batch size and rate, train with them, export what comes out, and serve it to oneself.

python examples/advise_train_export.py
"""

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import tfmb

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")


def build():
    model = keras.Sequential(
        [keras.Input((64,), name="pixels"), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


advice = tfmb.advise(build, x[:1500], y[:1500], target="val_accuracy>=0.93", batch_sizes=[16, 32, 64, 128, 256])
if advice.batch_size is None:
    raise SystemExit(advice.reason)
print(f"batch size {advice.batch_size}, learning rate {advice.learning_rate:.3g}: {advice.reason}")
print(f"it took {advice.cost_seconds:.0f} s to find out")

model = build()
model.optimizer.learning_rate = advice.learning_rate
tfmb.fit(model, x[:1500], y[:1500], batch_size=advice.batch_size, epochs=5, verbose=2)
print(f"test accuracy {tfmb.evaluate(model, x[1500:], y[1500:], verbose=0)[1]:.3f}")

# What the record shall say besides what the model tells of itself.
folder = tfmb.export(model, "saved_models/digits", provenance={"batch_size": advice.batch_size})
served = tf.saved_model.load(str(folder)).signatures["serving_default"]
answer = served(pixels=tf.constant(x[1500:1503]))
print(f"{folder} answers {answer['class_id'].numpy().tolist()}; right is {y[1500:1503].tolist()}")
