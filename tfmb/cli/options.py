"""Options of commands, made of the fields that declare them; and those that several commands share."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from tfmb.environment.console import results_alone
from tfmb.jobs.options import Option, flag, options_of

__all__ = ["Json", "Page", "takes"]


def results_alone_if(ctx: typer.Context, json: bool) -> bool:
    """Keeps standard output to the command's result where it is asked for as JSON."""
    if json:
        ctx.with_resource(results_alone())
    return json


Json = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON on standard output.", callback=results_alone_if)
]
Page = Annotated[str | None, typer.Option(help="Write a page with the curves to this file.")]


def takes(
    config: type, *names: str, but: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command the options that a dataclass declares; it gets their values as the dictionary `options`.

    Args:
        config: the dataclass.
        names: the options to take; all of them if none is named.
        but: options to leave out.
        defaults: those that differ from the dataclass's.
    """
    chosen = {
        name: about for name, about in options_of(config).items() if name in (names or (name,)) and name not in but
    }
    added = [_parameter(about, (defaults or {}).get(name, about.default)) for name, about in chosen.items()]

    def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**given: Any) -> Any:
            return command(options={name: given.pop(name) for name in chosen}, **given)

        own = [each for each in inspect.signature(command).parameters.values() if each.name != "options"]
        shown = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *added)]
        # Typer reads it; mypy knows no such attribute of a function.
        call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in shown}
        return call

    return with_options


def _parameter(about: Option, default: Any) -> inspect.Parameter:
    """The parameter of a command that Typer makes an option of."""
    kind: Any = str if about.words else about.kind
    shown: dict[str, Any] = {"help": about.help, "rich_help_panel": about.panel}
    if about.words:
        shown |= {"parser": functools.partial(_number_or_word, about), "metavar": f"INTEGER|{'|'.join(about.words)}"}
    declared = [flag(about.name)] if about.kind is bool and not default else []  # there is no --no-... of what is off
    return inspect.Parameter(
        about.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=str(default) if about.words else default,
        annotation=Annotated[kind | None if about.optional else kind, typer.Option(*declared, **shown)],
    )


def _number_or_word(about: Option, text: str) -> Any:
    try:
        return text if text in about.words else int(text)
    except ValueError:
        return text  # which the dataclass refuses, as it does any other
