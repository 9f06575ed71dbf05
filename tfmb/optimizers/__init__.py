"""Hand-written update rules, `SGD` (also `Momentum`), `RMSprop`, `Adam`, `AdamW`, and their schedules."""

from tfmb.optimizers import schedules
from tfmb.optimizers.adam import Adam, AdamW
from tfmb.optimizers.in_keras import as_keras
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.rmsprop import RMSprop
from tfmb.optimizers.sgd import SGD, Momentum

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Optimizer", "RMSprop", "as_keras", "schedules"]
