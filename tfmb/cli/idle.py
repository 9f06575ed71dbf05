"""Options that stand on a command line where they could change nothing: refused by name, never ignored."""

from collections.abc import Collection

import typer

from tfmb.errors import ConfigError
from tfmb.jobs.config import TrainConfig

__all__ = ["given_options", "refuse_idle", "refuse_idle_rule"]


def given_options(context: typer.Context) -> set[str]:
    """The names of the parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def refuse_idle(given: Collection[str], names: Collection[str], why: str) -> None:
    """Refuses those options that were given.

    Args:
        given: options on the command line.
        names: of options that could change nothing.
        why: what follows their names, such as `"is for --profile: give that too"`.

    Raises:
        ConfigError: one of them was given.
    """
    for name in names:
        if name in given:
            raise ConfigError(f"--{name.replace('_', '-')} {why}, or leave it out")


def refuse_idle_rule(given: Collection[str], config: TrainConfig) -> None:
    """Refuses what the optimizer of a new run would not look at.

    A run that was recorded with such an option is still read: it was trained without it.

    Raises:
        ConfigError: an option that could change nothing.
    """
    if config.rule is None or "optimizer" not in given:
        return
    momentum = config.rule.arguments.get("momentum", 0.9 if config.rule.name == "momentum" else 0.0)
    if config.rule.arguments.get("nesterov") and not momentum:
        raise ConfigError(
            f"--optimizer {config.optimizer}: nesterov looks ahead by the momentum, which is 0: leave it out"
        )
