"""The command line: parses, calls the library, prints. Nothing calls it, and `--help` does not import TensorFlow."""

import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from tfmb import __version__
from tfmb.cli.advise import advise, lr_range
from tfmb.cli.doctor import doctor
from tfmb.cli.launch import launch
from tfmb.cli.listing import list_runs
from tfmb.cli.mismatch import told_of_mismatch
from tfmb.cli.models import evaluate, export, predict
from tfmb.cli.program import Program
from tfmb.cli.run import run
from tfmb.cli.train import train
from tfmb.cli.tune import tune
from tfmb.cli.verify import verify
from tfmb.environment.console import OWN_PROCESS, fail, say, show_warnings
from tfmb.environment.old_names import NEW_NAMES, NEW_OPTIONS
from tfmb.errors import ConfigError, TfmbError
from tfmb.jobs.options import flag

__all__ = ["app", "main"]

# The names that commands had, and have.
_RENAMED = {"compare": "advise --compare", "runs": "list"}


class _Commands(typer.core.TyperGroup):
    """The commands by their names; one that was renamed is told by its new one."""

    def resolve_command(self, ctx: Any, args: Any) -> Any:
        """See Click.

        Raises:
            ConfigError: a name of before.
        """
        if args and args[0] in _RENAMED:
            raise ConfigError(f"`tfmb {args[0]}` is called `tfmb {_RENAMED[args[0]]}` now")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    help="Train Keras models by mini-batch gradient descent, with hand-written update rules.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, Callable[..., Any]] = {
    **{"train": train, "run": run, "lr-range": lr_range, "advise": advise, "tune": tune},
    **{"evaluate": evaluate, "export": export, "predict": predict, "verify": verify, "list": list_runs},
    **{"launch": launch, "doctor": doctor},
}
# What stands behind the program's name is the program's.
_SETTINGS = {"run": {"allow_interspersed_args": False}}
for name, command in _COMMANDS.items():
    app.command(name, context_settings=_SETTINGS.get(name))(command)

# What takes less memory, by the parameter that a command must have for it.
_TAKES_LESS = {
    "batch_size": "a smaller --batch-size",
    "batch_sizes": "smaller --batch-sizes",
    "micro_batch_size": "--micro-batch-size",
    "memory": "--memory, which finds the largest that fits",
    "model": "a smaller --model",
}

# The base of all usage errors; newer versions of Typer carry their own copy of it.
_UsageError: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: those of the process by default.

    Returns:
        The exit code: 0 done, 2 bad option, 3 diverged, 4 out of memory, 65 bad data, 69 another worker was lost,
        70 a check of `tfmb verify` failed, 73 directory in use, 74 input or output failed, 130 interrupted.
        `tfmb run` ends as its program does.
    """
    python = sys.excepthook, warnings.showwarning
    show_warnings()
    try:
        args, obj = (None, OWN_PROCESS) if arguments is None else (list(arguments), None)
        result = app(args=args, obj=obj, standalone_mode=False)
    except typer.Abort:
        return 130
    except TfmbError as error:
        fail(error.exit_code, str(error))
    except _UsageError as error:
        fail(2, _with_new_name(error.format_message(), getattr(getattr(error, "ctx", None), "info_name", "")))
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except MemoryError:
        fail(4, _out_of_memory(arguments))
    except OSError as error:
        fail(74, f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        if type(error).__name__ == "ResourceExhaustedError":
            fail(4, _out_of_memory(arguments))
        if told := told_of_mismatch(error):
            fail(2, told)
        raise
    if isinstance(result, Program):  # outside of all that changes what becomes of its errors
        sys.excepthook, warnings.showwarning = python
        result.run()
    return result if isinstance(result, int) else 0


def _with_new_name(message: str, command: str) -> str:
    """The message on an option that there is not, with the name that it has now."""
    for word in message.split():
        if (new := NEW_NAMES.get(word.removeprefix("--").replace("-", "_"))) is not None:
            return f"{word} is called {flag(new)} now"
        if (place := NEW_OPTIONS.get(f"{command} {word}", NEW_OPTIONS.get(word))) is not None:
            return f"{word} is no option now: give {place}"
    return message


def _out_of_memory(arguments: Sequence[str] | None) -> str:
    """Says so, and names what takes less among the options that the command has."""
    words = sys.argv[1:] if arguments is None else arguments
    asked = _COMMANDS.get(next((word for word in words if not word.startswith("-")), ""))
    has = [] if asked is None else list(inspect.signature(asked).parameters)
    less = [mend for name, mend in _TAKES_LESS.items() if name in has]
    return f"out of memory: give {', or '.join(less)}" if less else "out of memory: give it a machine with more"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"tfmb {__version__}")
        raise typer.Exit()
