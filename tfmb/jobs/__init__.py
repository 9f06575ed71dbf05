"""A training as the command line describes it: configuration, parts, resuming."""
