"""Hand-written update rules, `SGD` (also `Momentum`), `RMSprop`, `Adam`, `AdamW`, and their schedules.

Example:
    >>> schedule = tfmb.optimizers.schedules.Cosine(0.05, over=1000)
    >>> optimizer = tfmb.optimizers.SGD(schedule, momentum=0.9)
    >>> history = tfmb.fit(model, x, y, optimizer=optimizer, verbose=0)
"""

from tfmb.optimizers import schedules
from tfmb.optimizers.adam import Adam, AdamW
from tfmb.optimizers.in_keras import as_keras
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.rmsprop import RMSprop
from tfmb.optimizers.sgd import SGD, Momentum

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Optimizer", "RMSprop", "as_keras", "schedules"]
