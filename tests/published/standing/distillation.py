"""A student learns from a teacher by a `compute_loss` of its own."""

import keras
import numpy as np
from keras import ops

keras.utils.set_random_seed(11)


class Distiller(keras.Model):
    def __init__(self, student, teacher):
        super().__init__()
        self.teacher, self.student = teacher, student

    def compile(self, optimizer, metrics, student_loss_fn, distillation_loss_fn, alpha=0.1, temperature=3):
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss_fn, self.distillation_loss_fn = student_loss_fn, distillation_loss_fn
        self.alpha, self.temperature = alpha, temperature

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False):
        soft = self.teacher(x, training=False)
        student = self.student_loss_fn(y, y_pred)
        gap = self.distillation_loss_fn(
            ops.softmax(soft / self.temperature, axis=1), ops.softmax(y_pred / self.temperature, axis=1)
        )
        return self.alpha * student + (1 - self.alpha) * gap * (self.temperature**2)

    def call(self, x):
        return self.student(x)


def network(width):
    return keras.Sequential([keras.Input((10,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(3)])


x, y = np.random.normal(size=(64, 10)).astype("float32"), np.random.randint(0, 3, 64)
loss, accuracy = keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.metrics.SparseCategoricalAccuracy
teacher, student = network(16), network(4)
teacher.compile(optimizer=keras.optimizers.Adam(), loss=loss, metrics=[accuracy()])
given = {"batch_size": 16, "shuffle": False, "verbose": 0}
found = [teacher.fit(x, y, epochs=2, **given).history]
distiller = Distiller(student=student, teacher=teacher)
distiller.compile(
    optimizer=keras.optimizers.Adam(),
    metrics=[accuracy()],
    student_loss_fn=loss,
    distillation_loss_fn=keras.losses.KLDivergence(),
    alpha=0.1,
    temperature=10,
)
found += [distiller.fit(x, y, epochs=2, **given).history, distiller.evaluate(x, y, verbose=0)]
