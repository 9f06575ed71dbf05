"""The exceptions a user of tfmb can meet, each with the exit code the command line ends with.

Every message is one line that names the input and the mend. All are `ValueError`s.

Example:
    >>> try:
    ...     tfmb.fit(model, x, y, batch_size=0)
    ... except tfmb.errors.ConfigError as error:
    ...     print(error.exit_code, error)
    2 batch_size=0 ...
"""

__all__ = [
    "ConfigError",
    "DataError",
    "DirectoryError",
    "DivergenceError",
    "PeerLostError",
    "PreemptedError",
    "StorageError",
    "TfmbError",
]


class TfmbError(ValueError):
    """The base of every error tfmb raises on purpose.

    Attributes:
        exit_code: the exit code of the command line.
    """

    exit_code = 2


class ConfigError(TfmbError):
    """An option or argument that cannot be honoured (exit code 2)."""


class DivergenceError(TfmbError):
    """The loss or a gradient became NaN or infinite (exit code 3).

    The weights are those before the update that failed.

    Attributes:
        update: the number of the update that failed, counted from 1.
        learning_rate: the rate of that update.
        last_loss: the loss of the last good update, or None.
    """

    exit_code = 3

    def __init__(self, message: str, update: int, learning_rate: float, last_loss: float | None) -> None:
        super().__init__(message)
        self.update = update
        self.learning_rate = learning_rate
        self.last_loss = last_loss


class DataError(TfmbError):
    """Data, weights or an export that are missing, damaged or make no sense (exit code 65)."""

    exit_code = 65


class PeerLostError(TfmbError):
    """Another worker of the run died or cannot be reached (exit code 69)."""

    exit_code = 69


class DirectoryError(TfmbError):
    """A directory that is in use already or cannot be made (exit code 73)."""

    exit_code = 73


class StorageError(TfmbError):
    """A file of the run cannot be written: a full disk, say (exit code 74). What was saved before is whole."""

    exit_code = 74


class PreemptedError(TfmbError):
    """A signal ended the run after a checkpoint, from which it can go on (exit code 75)."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """The first line of an error's words, which may come from anywhere; the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
