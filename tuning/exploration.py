"""Finds what a user's `build(hp)` asks for: also in branches and loops that the default values do not enter.

Each discrete choice is tried with each of its values, the others as they were where the choice was met. A name that is
asked for under some values alone gets a condition, so that an oracle draws it for these alone. What is missed, because
it depends on several choices together or there are too many of them, is drawn at random in the trial that asks for it.
"""

import contextlib
import traceback
from collections.abc import Callable
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError, TfmbError

from .building import Asked, build_model
from .quiet import conditions, keras_tuner

__all__ = ["explore"]

# Builds of the model besides the first, without weights. A choice of more values is tried at its ends.
_MOST_BUILDS, _MOST_VALUES = 64, 8


def explore(build: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Returns `(hp, model)`: all that was found as `keras_tuner.HyperParameters`, and the model of the defaults.

    The model is one of other values if `build` fails for the defaults, and None if it always fails: so will the trials.

    Raises:
        ConfigError: `build` returns no Keras model.
    """
    asked, model = Asked({}), None
    try:
        model = build_model(build, asked)
    except TfmbError:
        raise
    except Exception:  # of the user's code for the default values: other values are still to be tried
        traceback.print_exc()
    else:
        if not isinstance(model, keras.Model):
            raise ConfigError(f"build(hp) returned {type(model).__name__}: let it return a Keras model")
    found = _Found(asked)
    number, builds = 0, 0
    while number < len(found.order):
        name = found.order[number]
        number += 1
        values, whole = _values_of(found.entries[name])
        if builds + len(values) > _MOST_BUILDS:
            continue
        seen = []
        for value in values:
            builds += 1
            probe, other = _probe(build, {**found.contexts[name], name: value})
            model = other if model is None else model
            seen.append((value, found.add(probe, name, value)))
        if whole:
            found.condition(name, seen)
    return found.space(), model


class _Found:
    """The entries that were met so far."""

    def __init__(self, asked: Asked) -> None:
        self.entries: dict[str, Any] = {}
        self.order: list[str] = []
        self.contexts: dict[str, dict[str, Any]] = {}  # values under which a name is asked for
        self._parents: dict[str, list[Any]] = {}
        self.add(asked, None, None)

    def add(self, asked: Asked, parent: str | None, value: Any) -> set[str]:
        """Notes what a build asked for; returns the names that are active in it."""
        context = {} if parent is None else {**self.contexts[parent], parent: value}
        for entry in asked.space:
            if entry.name not in self.entries:
                self.entries[entry.name] = entry
                self.order.append(entry.name)
                own: dict[str, Any] = {}
                for condition in entry.conditions:  # of a conditional_scope, which may be closed here
                    own |= self.contexts.get(condition.name, {}) | {condition.name: condition.values[0]}
                self.contexts[entry.name] = {**context, **own}
        return set(asked.names)

    def condition(self, parent: str, seen: list[tuple[Any, set[str]]]) -> None:
        """Gives a condition to the names that were asked for under some of the parent's values alone."""
        for name in set().union(*(names for _, names in seen)) - {parent}:
            under = [value for value, names in seen if name in names]
            later = self.order.index(name) > self.order.index(parent)
            if later and len(under) < len(seen) and not self.entries[name].conditions:
                self._parents.setdefault(name, []).append(conditions.Parent(parent, under))

    def space(self) -> Any:
        """Returns the entries as `keras_tuner.HyperParameters`."""
        hp = keras_tuner.HyperParameters()
        for name in self.order:
            entry = self.entries[name]
            config = entry.get_config()
            config["conditions"] = [conditions.serialize(c) for c in (*entry.conditions, *self._parents.get(name, []))]
            hp._register(type(entry).from_config(config))
        return hp


def _values_of(entry: Any) -> tuple[list[Any], bool]:
    """The values of a choice to try, and whether they are all."""
    kind = type(entry).__name__
    if kind == "Fixed" or (kind == "Float" and entry.step is None):
        return [], False
    values = list(entry.values)
    return (values, True) if len(values) <= _MOST_VALUES else ([values[0], values[-1]], False)


def _probe(build: Callable[[Any], Any], values: dict[str, Any]) -> tuple[Asked, Any]:
    """Has a model built that is given no weights; what fails then has asked before, and gives None."""
    asked, model = Asked(values), None
    with contextlib.suppress(Exception), keras.StatelessScope():
        model = build_model(build, asked)
    return asked, model
