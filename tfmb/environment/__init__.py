"""The interpreter, the machine and the terminal that the package finds."""
