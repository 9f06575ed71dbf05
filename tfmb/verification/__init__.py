"""Compares trainings with references: any loop with equations in NumPy, a run with `keras.Model.fit`, an export."""
