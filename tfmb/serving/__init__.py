"""Exports for TensorFlow Serving: SavedModels, their signatures, provenance and versions."""
