"""A classifier of series with the callbacks that every script has: it saves the best, lowers the rate, stops early."""

import tempfile

import keras
import numpy as np

keras.utils.set_random_seed(5)
x, y = np.random.normal(size=(90, 30, 1)), np.random.randint(0, 3, 90)
inputs = layer = keras.Input((30, 1))
for _ in range(2):
    layer = keras.layers.Conv1D(filters=8, kernel_size=3, padding="same")(layer)
    layer = keras.layers.ReLU()(keras.layers.BatchNormalization()(layer))
outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling1D()(layer))
model = keras.Model(inputs, outputs)
best = tempfile.mkdtemp() + "/best_model.keras"
callbacks = [
    keras.callbacks.ModelCheckpoint(best, save_best_only=True, monitor="val_loss"),
    keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1, min_lr=0.0001),
    keras.callbacks.EarlyStopping(monitor="val_loss", patience=3, verbose=0),
]
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
history = model.fit(x, y, batch_size=16, epochs=6, callbacks=callbacks, validation_split=0.2, shuffle=False, verbose=0)
found = [history.history, keras.models.load_model(best).evaluate(x, y, verbose=0)]
