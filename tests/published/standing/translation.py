"""An encoder and a decoder of LSTM layers with masks and shared states; named inputs and teacher forcing."""

import keras
import numpy as np

keras.utils.set_random_seed(14)
source, target = np.random.randint(1, 12, (48, 6)), np.random.randint(1, 15, (48, 7))
source[:, 4:] = 0
encoder_inputs, decoder_inputs = keras.Input((None,), name="source"), keras.Input((None,), name="target")
embedded = keras.layers.Embedding(12, 6, mask_zero=True)(encoder_inputs)
_, *states = keras.layers.LSTM(8, return_state=True)(embedded)
decoded, _, _ = keras.layers.LSTM(8, return_sequences=True, return_state=True)(
    keras.layers.Embedding(15, 6, mask_zero=True)(decoder_inputs), initial_state=states
)
model = keras.Model([encoder_inputs, decoder_inputs], keras.layers.Dense(15, activation="softmax")(decoded))
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
history = model.fit(
    {"source": source, "target": target[:, :-1]},
    target[:, 1:],
    batch_size=16,
    epochs=2,
    validation_split=0.25,
    shuffle=False,
    verbose=0,
)
found = [history.history, model.predict([source[:2], target[:2, :-1]], verbose=0)[0, 0].tolist()]
