"""Hand-written update rules: `SGD` (also `Momentum`), `RMSprop`, `Adam`, `AdamW`."""

from tfmb.optimizers.adam import Adam, AdamW
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.rmsprop import RMSprop
from tfmb.optimizers.sgd import SGD, Momentum

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Optimizer", "RMSprop"]
