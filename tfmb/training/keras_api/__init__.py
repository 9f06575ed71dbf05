"""The interface to Keras's models: the arguments of `compile`, a model's own methods, Keras's limits."""
