"""Measurements, one command each: `python -m benchmarks.NAME`. Never part of a test."""
