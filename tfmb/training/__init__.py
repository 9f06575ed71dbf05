"""The training loop: sums over each part of a batch, one collective, one update; and what watches it."""
