"""The watchers of a training: Keras's callbacks, logs and progress."""
