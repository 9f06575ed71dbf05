"""A search as a page and as TensorBoard's events."""
