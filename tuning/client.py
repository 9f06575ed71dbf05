"""An oracle in another process, as `search.Tuner` uses it."""

import contextlib
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from tfmb.errors import ConfigError, PeerLostError

from . import leases, wire
from .search import TrialLost

with contextlib.redirect_stdout(io.StringIO()):  # it greets on import
    import keras_tuner

__all__ = ["RemoteOracle"]

_CALL_SECONDS = 600.0  # a Gaussian process may think for long; whether the chief lives is seen by the beats
_PAUSE_SECONDS = 0.2
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
# A chief that runs, but will not have this call, whatever is tried.
_OURS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


class RemoteOracle(keras_tuner.Oracle):
    """Asks the chief. A thread of its own tells it, all the time, that this worker lives.

    Args:
        address: of the chief.
        lost: is called, in that thread, where the chief was not heard of for `leases.LEASE_SECONDS`.
    """

    def __init__(self, address: wire.Address, lost: Callable[[], None]) -> None:
        super().__init__()
        self._address, self._lost = address, lost
        self._methods = wire.requests()
        self._channel = address.channel()
        self._calls = {name: self._channel.unary_unary(f"/{wire.SERVICE}/{name}") for name in self._methods}
        self._answered, self._every = time.monotonic(), leases.BEAT_SECONDS
        self._closed = threading.Event()
        self._beats = threading.Thread(target=self._beat, name=f"beats of {address.worker}", daemon=True)
        self._beats.start()

    def close(self) -> None:
        """Ends the connection, and the beats."""
        self._closed.set()
        self._beats.join()
        self._channel.close()

    def create_trial(self, tuner_id: str) -> Any:
        """See `oracles`."""
        return wire.from_proto(self._call("CreateTrial", tuner_id=tuner_id).trial)

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Any:
        """See `oracles`.

        Raises:
            TrialLost: the trial is not this worker's any more.
            ConfigError: what is reported makes no sense.
        """
        exact = wire.write_metrics(metrics)
        return wire.from_proto(self._call("UpdateTrial", exact, trial_id=trial_id, metrics=metrics, step=step).trial)

    def end_trial(self, trial: Any) -> None:
        """See `oracles`. Raises as `update_trial` does."""
        self._call("EndTrial", trial={"trial_id": trial.trial_id, "status": "COMPLETED"})

    def get_trial(self, trial_id: str) -> Any:
        """See `oracles`."""
        return wire.from_proto(self._call("GetTrial", trial_id=trial_id).trial)

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """See `oracles`."""
        return [wire.from_proto(trial) for trial in self._call("GetBestTrials", num_trials=num_trials).trials]

    def get_space(self) -> Any:
        """The whole space."""
        return keras_tuner.HyperParameters.from_proto(self._call("GetSpace").hyperparameters)

    def save(self) -> None:
        """Nothing: the chief keeps the journal."""

    def _call(self, method: str, *metadata: tuple[str, str], **fields: Any) -> Any:
        request, response = self._methods[method]
        content = request(**fields).SerializeToString()
        while True:
            try:
                answer = self._calls[method](
                    content, metadata=(*self._address.metadata, *metadata), timeout=_CALL_SECONDS
                )
            except grpc.RpcError as error:
                code, why = error.code(), error.details()
                if code in _AGAIN and not self._is_lost():
                    time.sleep(_PAUSE_SECONDS)
                    continue
                if code == grpc.StatusCode.FAILED_PRECONDITION:
                    raise TrialLost(why) from error
                if code in _OURS:
                    raise ConfigError(why) from error
                raise PeerLostError(f"lost the chief of the search ({code.name}: {why})") from error
            self._answered = time.monotonic()
            return response.FromString(answer)

    def _is_lost(self) -> bool:
        return self._closed.is_set() or time.monotonic() - self._answered > leases.LEASE_SECONDS

    def _patience(self) -> float:
        """Seconds to the next beat, or for its answer: not past the moment when the chief counts as lost."""
        left = leases.LEASE_SECONDS - (time.monotonic() - self._answered)
        return min(self._every, max(left, 0.0) + _PAUSE_SECONDS)

    def _beat(self) -> None:
        while not self._closed.wait(self._patience()):
            try:
                self._calls["GetSpace"](b"", metadata=self._address.metadata, timeout=self._patience())
                self._answered = time.monotonic()
            except grpc.RpcError as error:
                refused = error.code() == grpc.StatusCode.UNAUTHENTICATED
                if not self._closed.is_set() and (refused or self._is_lost()):
                    self._lost()
                    return
            except ValueError:  # the channel was closed
                return
