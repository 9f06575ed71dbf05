"""Texts that a layer makes into numbers, in the data for training and in the model for use."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(2)
words = np.array(["good", "bad", "film", "the", "a", "was", "is", "not", "very", "actor"])
texts = [" ".join(np.random.choice(words, np.random.randint(3, 9))) + "<br />!" for _ in range(64)]
labels = np.array(["good" in text for text in texts], "int64")
raw = tf.data.Dataset.from_tensor_slices((texts, labels)).batch(16)


def plain(text):
    return tf.strings.regex_replace(tf.strings.lower(text), "<br />|!", " ")


vectorize = keras.layers.TextVectorization(standardize=plain, max_tokens=20, output_sequence_length=8)
vectorize.adapt(raw.map(lambda text, label: text))
data = raw.map(lambda text, label: (vectorize(tf.expand_dims(text, -1)), label)).cache().prefetch(2)

inputs = keras.Input((None,), dtype="int64")
x = keras.layers.Dropout(0.5)(keras.layers.Embedding(20, 8)(inputs))
x = keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(8, 3, padding="same", activation="relu")(x))
model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="predictions")(x))
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
history = model.fit(data, validation_data=data, epochs=2, verbose=0)

typed = keras.Input((1,), dtype="string")
whole = keras.Model(typed, model(vectorize(typed)))
whole.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
found = [history.history, whole.evaluate(raw.map(lambda text, label: (tf.expand_dims(text, -1), label)), verbose=0)]
