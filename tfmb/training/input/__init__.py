"""The batches of a training, from the user's data."""
