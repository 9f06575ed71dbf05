"""A table as a dictionary of columns: numbers that are normalized, words and codes that are looked up."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(3)
rows = 64
columns = {
    "age": np.random.uniform(20, 70, rows).astype("float32"),
    "kind": np.random.choice(["fixed", "normal", "reversible"], rows),
    "code": np.random.randint(0, 5, rows),
}
target = np.random.randint(0, 2, rows)
data = tf.data.Dataset.from_tensor_slices((columns, target)).batch(16)
age, kind, code = (
    keras.Input((1,), name="age"),
    keras.Input((1,), dtype="string", name="kind"),
    keras.Input((1,), name="code", dtype="int64"),
)
normalize = keras.layers.Normalization()
normalize.adapt(columns["age"][:, None])
words = keras.layers.StringLookup(output_mode="binary")
words.adapt(columns["kind"])
codes = keras.layers.IntegerLookup(output_mode="binary")
codes.adapt(columns["code"])
x = keras.layers.concatenate([normalize(age), words(kind), codes(code)])
x = keras.layers.Dropout(0.5)(keras.layers.Dense(16, activation="relu")(x))
model = keras.Model([age, kind, code], keras.layers.Dense(1, activation="sigmoid")(x))
model.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])
data = data.map(lambda x, y: ({key: tf.expand_dims(value, -1) for key, value in x.items()}, y))
history = model.fit(data, epochs=2, validation_data=data, verbose=0)
one = {key: tf.convert_to_tensor(value[:1, None]) for key, value in columns.items()}
found = [history.history, model.predict(one, verbose=0).tolist()]
