"""The compilation, caching and calling of steps."""
