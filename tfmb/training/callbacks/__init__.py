"""What watches a training: Keras's callbacks, logs and progress."""
