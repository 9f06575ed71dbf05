"""A `HyperModel` with a `fit` of its own: what it passes to `model.fit` is what a trial is trained with.

Keras Tuner's way to search the batch size is a `fit` that calls `model.fit(*args, batch_size=hp.Choice(...),
**kwargs)`. It is called with a model whose `fit` only notes its arguments. What the search's loop cannot honour is
refused by name.
"""

import inspect
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError

__all__ = ["HyperFit", "passed_to_fit"]

_NOTED = "_passed_to_fit"
# What `fit` may be given, and what then is meant as anywhere else.
_HARMLESS = ("x", "y", "validation_data", "verbose")


class HyperFit:
    """The `build` of a HyperModel, whose models know what its `fit` passes on.

    Args:
        hypermodel: with a `fit` of its own.
    """

    def __init__(self, hypermodel: Any) -> None:
        self._hypermodel = hypermodel
        self.__name__ = type(hypermodel).__name__

    def __call__(self, hp: Any) -> Any:
        """Returns a new model.

        Raises:
            ConfigError: its `fit` does something else than to call `model.fit` with arguments that a search takes.
        """
        model = self._hypermodel.build(hp)
        model.__dict__[_NOTED] = self._noted(hp, model)
        return model

    def _noted(self, hp: Any, model: Any) -> dict[str, Any]:
        name, calls, history = self.__name__, list[Any](), keras.callbacks.History()
        given = {"x": object(), "y": object(), "validation_data": (object(), object())}

        def fit(*arguments: Any, **rest: Any) -> Any:
            calls.append(inspect.signature(keras.Model.fit).bind(model, *arguments, **rest).arguments)
            return history

        model.__dict__["fit"] = fit
        try:
            returned = self._hypermodel.fit(
                hp, model, given["x"], given["y"], validation_data=given["validation_data"], verbose=0, callbacks=[]
            )
        except Exception as error:  # such as of arithmetic with data that are not there
            raise ConfigError(f"{name}.fit does more than call model.fit ({type(error).__name__}: {error})") from error
        finally:
            del model.__dict__["fit"]
        if len(calls) != 1 or returned is not history:
            raise ConfigError(f"{name}.fit must call model.fit once, and return what it returns")
        for key, value in given.items():
            if calls[0].get(key, value) is not value:
                raise ConfigError(f"{name}.fit passes another {key} to model.fit: give the search the data to train on")
        passed = {key: value for key, value in calls[0].items() if key not in ("self", *_HARMLESS)}
        if passed.get("callbacks") == []:
            del passed["callbacks"]
        if passed.get("shuffle") is True:
            del passed["shuffle"]
        if other := sorted(set(passed) - {"batch_size", "epochs"}):
            mend = ": give callbacks=... to the search" if "callbacks" in other else ""
            raise ConfigError(f"{name}.fit passes {', '.join(other)} to model.fit, which a search does not take{mend}")
        return passed


def passed_to_fit(model: Any) -> dict[str, Any]:
    """Returns the batch size and the epochs that a `HyperModel.fit` passes on for this model."""
    return dict(model.__dict__.get(_NOTED, {}))
