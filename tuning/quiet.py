"""Keras Tuner, whose greeting on import is kept off the screen."""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):
    import keras_tuner
    from keras_tuner.src.engine import conditions
    from keras_tuner.src.engine import oracle as engine_oracle

__all__ = ["conditions", "engine_oracle", "keras_tuner"]
