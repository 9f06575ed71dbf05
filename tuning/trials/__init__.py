"""One trial: a model that is trained slice by slice."""
