"""A small convolutional network on arrays, with a share held out."""

import keras
import numpy as np

keras.utils.set_random_seed(0)
x, y = np.random.random((96, 12, 12, 1)).astype("float32"), np.random.randint(0, 4, 96)
model = keras.Sequential(
    [
        keras.Input((12, 12, 1)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(4, activation="softmax"),
    ]
)
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
y = keras.utils.to_categorical(y, 4)
history = model.fit(x, y, batch_size=16, epochs=2, validation_split=0.1, shuffle=False, verbose=0)
found = [history.history, model.evaluate(x, y, verbose=0)]
