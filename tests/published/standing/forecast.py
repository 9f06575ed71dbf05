"""Windows of a series, made by Keras's own utility, and an LSTM."""

import keras
import numpy as np

keras.utils.set_random_seed(6)
series = np.cumsum(np.random.normal(size=(240, 3)), axis=0).astype("float32")
data = keras.utils.timeseries_dataset_from_array(
    series[:-12], series[12:, :1], sequence_length=12, sampling_rate=2, batch_size=32
)
for batch in data.take(1):
    windows, targets = batch
inputs = keras.layers.Input(shape=(windows.shape[1], windows.shape[2]))
model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LSTM(8)(inputs)))
model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.001), loss="mse")
stops = keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=0, patience=5)
history = model.fit(data, epochs=2, validation_data=data, callbacks=[stops], verbose=0)
found = [history.history, model.predict(windows, verbose=0)[:4].ravel().tolist(), [len(targets)]]
