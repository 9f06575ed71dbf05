"""A run's directory: its record, its weights, and what must be the same to go on with it."""
