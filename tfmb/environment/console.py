"""The output of the command line: results on standard output, everything else on standard error."""

import contextlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

__all__ = [
    "OWN_PROCESS",
    "emit_json",
    "fail",
    "quiet_start",
    "results_alone",
    "say",
    "show_warnings",
    "start_tensorflow",
    "tell",
]

# What a command's context holds where the process is that command's and no other program's.
OWN_PROCESS = "own process"
# Where results go while `results_alone` holds.
_results: TextIO | None = None


def say(line: str) -> None:
    """Writes a line for the user, on standard error."""
    print(f"tfmb: {_plain(line)}", file=sys.stderr, flush=True)


def tell(line: str, to: TextIO | None = None) -> None:
    """Writes a line of a result, on standard output or `to`; a terminal gets no characters that would steer it."""
    stream = (_results or sys.stdout) if to is None else to
    steers = stream.isatty()
    print("".join(c if _is_shown(c, steers) else ascii(c)[1:-1] for c in line), file=stream, flush=True)


def _is_shown(character: str, on_terminal: bool) -> bool:
    """Whether a character can be written; halves of surrogate pairs, from names that are no UTF-8, cannot."""
    if "\ud800" <= character <= "\udfff":
        return False
    return character.isprintable() or not on_terminal


def fail(code: int, message: str) -> NoReturn:
    """Ends the program with one line that says why."""
    print(f"tfmb: error[{code}]: {_plain(' '.join(message.split()))}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def _plain(line: str) -> str:
    """Returns the line without characters that steer a terminal: names come from files and command lines."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


def emit_json(result: dict[str, Any]) -> None:
    """Writes one machine-readable line on standard output; numbers that are not finite become null."""
    finite = {key: None if isinstance(value, float) and value - value != 0 else value for key, value in result.items()}
    print(json.dumps(finite), file=_results or sys.stdout, flush=True)


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Leaves standard output to results: what else is printed while the block runs goes to standard error.

    A user's `build`, a library (Ray, where a worker died) or a child process may print, and none is to stand in a line
    of JSON.
    """
    global _results
    sys.stdout.flush()
    results = sys.stdout
    try:
        is_descriptor = results.fileno() == 1
    except OSError:  # a notebook's, or a test's
        is_descriptor = False
    if is_descriptor:
        results = os.fdopen(os.dup(1), "w", encoding=results.encoding, errors=results.errors)
        os.dup2(2, 1)
    _results = results
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results = None
        if is_descriptor:
            os.dup2(results.fileno(), 1)
            with contextlib.suppress(BrokenPipeError):
                results.close()


def show_warnings() -> None:
    """Shows warnings as lines of ours, each once."""

    def show(message: Any, *_: Any, **__: Any) -> None:
        say(f"warning: {' '.join(str(message).split())}")

    warnings.showwarning = show


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Keeps what TensorFlow's runtime writes while it starts off the screen; shows it if the block fails.

    The runtime logs before it has read TF_CPP_MIN_LOG_LEVEL, straight to the file descriptor.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException as error:
            os.dup2(kept, 2)
            if not isinstance(error, ValueError):
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def start_tensorflow(threads: int | None = None) -> None:
    """Imports TensorFlow and finds its devices, without its own messages.

    Args:
        threads: that share the work of one operation, which TensorFlow fixes when it starts; None for its own choice.
    """
    with quiet_start():
        from tfmb.backend import tf

        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.get_logger().setLevel("ERROR")  # such as its advice on how to trace less
        tf.config.list_physical_devices()
