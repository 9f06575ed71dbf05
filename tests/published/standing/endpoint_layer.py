"""A reader of characters: a layer adds the CTC loss, labels are an input, and fit gets no targets."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

keras.utils.set_random_seed(15)


class CTCLayer(keras.layers.Layer):
    def call(self, y_true, y_pred):
        rows = ops.ones((ops.shape(y_true)[0],), "int32")
        loss = ops.ctc_loss(
            ops.cast(y_true, "int32"), y_pred, rows * ops.shape(y_true)[1], rows * ops.shape(y_pred)[1], mask_index=0
        )
        self.add_loss(ops.mean(loss))
        return y_pred


image, label = keras.Input((16, 8, 1), name="image"), keras.Input((3,), name="label")
x = keras.layers.MaxPooling2D((1, 2))(keras.layers.Conv2D(4, 3, activation="relu", padding="same")(image))
x = keras.layers.Dropout(0.2)(keras.layers.Dense(8, activation="relu")(keras.layers.Reshape((16, 16))(x)))
x = keras.layers.Bidirectional(keras.layers.LSTM(6, return_sequences=True, dropout=0.25))(x)
output = CTCLayer(name="ctc_loss")(label, keras.layers.Dense(6, name="scores")(x))
model = keras.Model(inputs=[image, label], outputs=output)
model.compile(optimizer=keras.optimizers.Adam())
images, labels = np.random.random((32, 16, 8, 1)).astype("float32"), np.random.randint(1, 6, (32, 3)).astype("float32")
data = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels}).batch(8)
stops = keras.callbacks.EarlyStopping(monitor="val_loss", patience=10, restore_best_weights=True)
history = model.fit(data, validation_data=data, epochs=2, callbacks=[stops], verbose=0)
reader = keras.models.Model(model.inputs[0], model.get_layer("scores").output)
found = [history.history, float(reader.predict(images, verbose=0).mean())]
