"""A table with numbers and categories: a model with several named inputs takes a dict of columns.

python examples/tabular.py
"""

import keras
import numpy as np

import tfmb

CITIES = ["Bern", "Lyon", "Oslo"]

numbers = np.random.default_rng(0)
columns = {
    "age": numbers.integers(18, 80, 1000).astype("float32"),
    "income": numbers.lognormal(3.5, 0.4, 1000).astype("float32"),  # thousands a year
    "city": numbers.integers(0, len(CITIES), 1000),
}
bought = (columns["income"] / 40 - columns["age"] / 50 + 0.5 * (columns["city"] == 2) > 0).astype("int64")

inputs = {
    "age": keras.Input((1,), name="age"),
    "income": keras.Input((1,), name="income"),
    "city": keras.Input((), dtype="int64", name="city"),
}
normalized = []
for name in ("age", "income"):
    layer = keras.layers.Normalization()
    layer.adapt(columns[name][:, None])
    normalized.append(layer(inputs[name]))
city = keras.layers.Embedding(len(CITIES), 2)(inputs["city"])
hidden = keras.layers.Dense(16, "relu")(keras.layers.Concatenate()([*normalized, city]))
model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="bought")(hidden))
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])

table = {**columns, "age": columns["age"][:, None], "income": columns["income"][:, None]}
history = tfmb.fit(
    model,
    table,
    bought,
    batch_size=32,
    epochs=15,
    validation_split=0.2,
    optimizer=tfmb.optimizers.Adam(0.01),
    verbose=2,
)
print(f"val_accuracy {history.history['val_accuracy'][-1]:.3f}")
new = {"age": np.array([[30.0]]), "income": np.array([[60.0]]), "city": np.array([CITIES.index("Oslo")])}
print(f"a 30-year-old in Oslo with 60,000 a year buys with probability {tfmb.predict(model, new)[0, 0]:.2f}")
