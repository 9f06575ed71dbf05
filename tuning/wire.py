"""What travels between a search's chief and its workers: Keras Tuner's messages, with numbers that stay whole.

Keras Tuner's messages round metrics and scores to 32 bits, and a search that goes on compares them. So each trial also
carries them as text, in an entry of its values; a report carries them beside the message.
"""

import contextlib
import io
import json
import math
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from tfmb.errors import ConfigError

with contextlib.redirect_stdout(io.StringIO()):  # it greets on import
    from keras_tuner.engine import trial as their_trial
    from keras_tuner.src import protos

__all__ = [
    "METRICS",
    "MOST_BYTES",
    "OPTIONS",
    "SERVICE",
    "Address",
    "from_proto",
    "read_metrics",
    "requests",
    "sender",
    "to_proto",
    "write_metrics",
]

SERVICE = "keras_tuner.Oracle"
MOST_BYTES = 4 * 2**20
_MOST_METADATA, _MOST_METRICS, _MOST_NAME = 256 * 2**10, 1000, 200
# Metadata of a call: whose it is, that it may be made, and the exact metrics of a report.
_WORKER, _TOKEN, METRICS = "tfmb-worker", "authorization", "tfmb-metrics"
# The entry of a trial's values that holds its metrics and score.
_EXACT = "tfmb/exact"
OPTIONS = [
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_metadata_size", _MOST_METADATA),
    ("grpc.absolute_max_metadata_size", _MOST_METADATA),
    ("grpc.enable_http_proxy", 0),
    ("grpc.so_reuseport", 0),  # or two searches would share a port, and each get half of the calls
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a worker finds its chief, and by what the chief knows it.

    Attributes:
        target: the chief's socket (`unix:PATH`) or `HOST:PORT`.
        worker: the worker's name.
        token: known to this one process and the chief.
    """

    target: str
    worker: str
    token: str

    def channel(self) -> grpc.Channel:
        """A connection, made when it is first used."""
        return grpc.insecure_channel(self.target, options=OPTIONS)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of each call."""
        return (_WORKER, self.worker), (_TOKEN, f"Bearer {self.token}")


def sender(metadata: Any) -> tuple[str, str]:
    """The worker's name and token in a call's metadata; `""` where they are missing."""
    found = {str(key): value for key, value in metadata or () if isinstance(value, str)}
    return found.get(_WORKER, ""), found.get(_TOKEN, "").removeprefix("Bearer ")


def requests() -> dict[str, tuple[Any, Any]]:
    """Method -> its request and response, of Keras Tuner's service."""
    service = protos.get_service()
    names = ("GetSpace", "UpdateSpace", "CreateTrial", "UpdateTrial", "EndTrial", "GetTrial", "GetBestTrials")
    return {name: (getattr(service, f"{name}Request"), getattr(service, f"{name}Response")) for name in names}


def to_proto(trial: Any) -> Any:
    """A trial as a message, from which `from_proto` makes the same one, to the bit."""
    message = trial.to_proto()
    looks = {
        name: [tracked.direction, [[look.step, look.value] for look in tracked.get_history()]]
        for name, tracked in trial.metrics.metrics.items()
    }
    score = None if trial.score is None else float(trial.score)
    exact = json.dumps({"metrics": looks, "score": score, "message": trial.message})
    message.hyperparameters.values.values[_EXACT].string_value = exact
    return message


def from_proto(message: Any) -> Any:
    """The trial of a message of `to_proto`."""
    trial = their_trial.Trial.from_proto(message)
    exact = json.loads(trial.hyperparameters.values.pop(_EXACT))
    for name, (direction, looks) in exact["metrics"].items():
        config = {"direction": direction, "observations": [{"step": step, "value": value} for step, value in looks]}
        trial.metrics.metrics[name] = type(trial.metrics.metrics[name]).from_config(config)
    trial.score, trial.message = exact["score"], exact["message"]
    return trial


def write_metrics(metrics: dict[str, float]) -> tuple[str, str]:
    """The metrics of a report as an entry of its call's metadata.

    Raises:
        ConfigError: some are not finite.
    """
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise ConfigError(f"the metric {wrong[0]!r} became {metrics[wrong[0]]}: mend it, or leave it out of a search")
    return METRICS, json.dumps({name: float(value) for name, value in metrics.items()}, allow_nan=False)


def read_metrics(rounded: dict[str, float], metadata: Any) -> dict[str, float]:
    """The metrics of a report: those of its metadata, or, without any, those of the message.

    Raises:
        ConfigError: too many, names that are too long, what is no finite number, or two that do not agree.
    """
    texts = [value for key, value in metadata or () if key == METRICS]
    try:
        exact = json.loads(texts[0]) if texts else dict(rounded)
        if not isinstance(exact, dict) or not all(type(value) in (int, float) for value in exact.values()):
            raise ValueError("they are no numbers by name")
        exact = {name: float(value) for name, value in exact.items()}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"the metrics of a report make no sense ({str(error)[:100]})") from error
    if not 0 < len(exact) <= _MOST_METRICS or any(not 0 < len(name) <= _MOST_NAME for name in exact):
        raise ConfigError(f"a report holds from 1 to {_MOST_METRICS} metrics, with names up to {_MOST_NAME} long")
    if not all(math.isfinite(value) for value in exact.values()):
        raise ConfigError("a report holds NaN or infinite metrics")
    with np.errstate(over="ignore"):
        if set(exact) != set(rounded) or any(np.float32(exact[name]) != rounded[name] for name in exact):
            raise ConfigError("the metrics of a report are not those beside it")
    return exact
