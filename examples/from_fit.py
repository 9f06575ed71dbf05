"""From `model.fit` to `tfmb.fit`: one line changes; callbacks, class weights and the History stay.

python examples/from_fit.py
"""

import keras
from sklearn.datasets import load_digits

import tfmb

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, "relu"),
        tfmb.layers.Dropout(0.2),  # keras.layers.Dropout works too; this one's masks do not depend on the devices
        keras.layers.Dense(10),
    ]
)
model.compile(
    keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
callbacks = [
    keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True),
    keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True),
]

# Was: history = model.fit(x, y, ...)
history = tfmb.fit(
    model, x, y, batch_size=32, epochs=20, validation_split=0.2, callbacks=callbacks, class_weight={8: 2.0}, verbose=2
)

best = min(range(len(history.epoch)), key=history.history["val_loss"].__getitem__)
print(f"best epoch {best + 1}: val_accuracy {history.history['val_accuracy'][best]:.3f}")
print(f"the same of best.keras: {keras.models.load_model('best.keras').evaluate(x[-360:], y[-360:], verbose=0)[1]:.3f}")
