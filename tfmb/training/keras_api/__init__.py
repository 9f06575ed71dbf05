"""What a Keras model brings along: what it was compiled with, its own methods, Keras's limits."""
