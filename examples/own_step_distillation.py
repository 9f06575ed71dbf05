"""Distillation: a small model learns from a large one's answers, in a `train_step` of its own.

python examples/own_step_distillation.py [RUN_DIR]
"""

import sys

import keras
import tensorflow as tf
from keras import layers, ops
from sklearn.datasets import load_digits

import tfmb

TEMPERATURE = 3.0


class Distiller(keras.Model):
    """Trains `student` on targets and on the answers of `teacher`, which stays as it is."""

    def __init__(self, student: keras.Model, teacher: keras.Model) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        teacher.trainable = False

    def call(self, x, training=False):
        """The student's logits."""
        return self.student(x, training=training)

    def train_step(self, data):
        """One update of the student."""
        x, y = data
        soft = ops.softmax(self.teacher(x, training=False) / TEMPERATURE)
        with tf.GradientTape() as tape:
            logits = self(x, training=True)
            hard_loss = self.compute_loss(x, y, logits)
            soft_loss = ops.mean(keras.losses.kl_divergence(soft, ops.softmax(logits / TEMPERATURE))) * TEMPERATURE**2
            loss = 0.3 * hard_loss + 0.7 * soft_loss
        weights = self.student.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, logits)
        return {metric.name: metric.result() for metric in self.metrics}


def network(units: int) -> keras.Model:
    """A classifier of digits."""
    return keras.Sequential([keras.Input((64,)), layers.Dense(units, "relu"), layers.Dense(10)])


def compiled(model: keras.Model) -> keras.Model:
    """The model, ready for `fit`."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


if __name__ == "__main__":
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    teacher = compiled(network(256))
    tfmb.fit(teacher, x[:1500], y[:1500], epochs=8, seed=0, verbose=0)
    saved = {"run_dir": sys.argv[1], "resume": True} if sys.argv[1:] else {}
    model = compiled(Distiller(network(16), teacher))
    tfmb.fit(model, x[:1500], y[:1500], epochs=8, seed=0, verbose=2, **saved)
    print(f"test accuracy {tfmb.evaluate(model, x[1500:], y[1500:], verbose=0)[1]:.3f}")
