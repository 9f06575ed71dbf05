"""Saving a training while it runs, and ending it on a signal."""
