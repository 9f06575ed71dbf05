"""How steps are compiled, cached and called."""
