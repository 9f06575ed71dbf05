"""What to try next: Keras Tuner's oracles with a journal, and Optuna's."""
