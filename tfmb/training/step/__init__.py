"""One update: from a batch to the weights."""
