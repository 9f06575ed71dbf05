"""A search: batch size, learning rate and optimizer, and what `build(hp)` asks for besides.

python examples/search.py
"""

import keras
from sklearn.datasets import load_digits

import tfmb

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")


def build(hp):
    layers = [keras.layers.Dense(hp.Choice("units", [16, 64]), "relu") for _ in range(hp.Int("depth", 1, 2))]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    # No optimizer: the search chooses it, with its rate.
    model.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


result = tfmb.tune(
    build,
    x[:1500],
    y[:1500],
    objective="val_accuracy",
    oracle="random",
    max_trials=6,
    epochs=3,  # of the data for each trial, whatever its batch size
    batch_size=[32, 64, 128],
    learning_rate=(1e-3, 1e-1),  # a range, on a logarithmic scale
    optimizer=["adam", "momentum"],
    run_dir="runs/search",  # killed? the same command goes on
    seed=0,
)
for trial in result.trials:
    chosen = {name: trial.values[name] for name in ("units", "depth", "batch_size", "learning_rate", "optimizer")}
    print(trial.fate, trial.score, chosen)

model = result.best_model()
model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
print(f"test accuracy {tfmb.evaluate(model, x[1500:], y[1500:], verbose=0)[1]:.3f}")
