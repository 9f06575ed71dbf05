"""The batches of a training, from what the user gives."""
