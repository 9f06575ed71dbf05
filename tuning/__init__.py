"""Searches over batch size, learning rate and whatever a user's `build(hp)` adds. Imported as `tfmb.tuning`."""
