"""Keras Tuner's oracle as a service for the workers of a search, on a socket that only this user can reach.

Keras Tuner's own chief believes all it is told, holds its lock for ever where a call fails, and listens on a port
without any credentials. Here what makes no sense is answered with a status, and nothing of it reaches the oracle.
"""

import functools
import hmac
import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from typing import Any, NoReturn

import grpc

from tfmb.errors import ConfigError

from . import leases, wire
from .door import JOIN, LEAVE, Door

__all__ = ["Server"]

_MOST_ENTRIES, _MOST_TRIALS, _MOST_ID = 1000, 1000, 100
_MOST_PATH = 100  # bytes of a socket's path, whose limit is 107
_MOST_WORDS = 1000
Code = grpc.StatusCode


class _Refused(Exception):  # noqa: N818 - an answer, and no error of ours
    def __init__(self, code: grpc.StatusCode, why: str) -> None:
        super().__init__(why)
        self.code = code


class Server:
    """Serves an oracle until it is closed.

    Args:
        oracle: from `oracles.make_oracle`, begun.
        threads: how many calls may wait at once.
        door: for workers of other hosts; None lets nobody in.

    Attributes:
        leases: when each worker was heard of.
        ended: worker -> how many trials it ended.
        failure: why we could not answer a call that made sense, such as a full disk; None where we always could.
        port: of the door.

    Raises:
        ConfigError: the door's address cannot be listened on.
    """

    def __init__(self, oracle: Any, threads: int = 10, door: Door | None = None) -> None:
        self.leases = leases.Leases()
        self.ended: Counter[str] = Counter()
        self.failure: Exception | None = None
        self._oracle, self._door = oracle, door
        self._tokens: dict[str, str] = {}
        self._methods = wire.requests()
        self._space = wire.requests()["GetSpace"][1](hyperparameters=oracle.get_space().to_proto())
        self._folder = tempfile.mkdtemp(prefix="tfmb-")  # nobody else may enter it
        if len(os.fsencode(self._folder)) > _MOST_PATH - 10:
            os.rmdir(self._folder)
            self._folder = tempfile.mkdtemp(prefix="tfmb-", dir="/tmp")
        self._socket = os.path.join(self._folder, "chief")
        self._server = grpc.server(futures.ThreadPoolExecutor(threads), options=wire.OPTIONS)
        names = [*self._methods, *(() if door is None else (JOIN, LEAVE))]
        handlers = {name: grpc.unary_unary_rpc_method_handler(functools.partial(self._answer, name)) for name in names}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))
        self._server.add_insecure_port(f"unix:{self._socket}")
        self.port = 0 if door is None else self._listen(door.address)
        self._server.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Answers nobody any more."""
        self._server.stop(None).wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def admit(self, worker: str) -> wire.Address:
        """The address for a new process of a worker; calls of an earlier one of that name are refused from now on."""
        self._tokens[worker] = secrets.token_hex(32)
        self.leases.expect(worker)
        return wire.Address(target=f"unix:{self._socket}", worker=worker, token=self._tokens[worker])

    def dismiss(self, worker: str) -> None:
        """A worker's process ended: its calls are refused, and its trial goes back."""
        self._tokens.pop(worker, None)
        self.leases.forget(worker)
        self._oracle.give_back(worker)

    def take_back(self) -> list[str]:
        """Gives the trials of silent workers to the others; those that have been silent for long are returned."""
        silent = self.leases.silent()
        for worker in silent:
            if worker not in self.leases.lost:
                self.leases.lost.add(worker)
                self._oracle.give_back(worker)
        return [worker for worker, seconds in silent.items() if seconds > leases.HUNG_SECONDS]

    def _answer(self, method: str, content: bytes, context: Any) -> bytes:
        code, why = Code.INTERNAL, ""
        try:
            return self._answered(method, content, context.invocation_metadata())
        except _Refused as refused:
            code, why = refused.code, str(refused)
        except ConfigError as error:
            code, why = Code.INVALID_ARGUMENT, str(error)
        except Exception as error:  # the chief ends the search with it: a caller must have an answer all the same
            self.failure = self.failure or error
            why = f"{type(error).__name__}: {error}"
        context.abort(code, why[:_MOST_WORDS])
        raise AssertionError("abort raises")

    def _listen(self, address: str) -> int:
        try:
            return int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ConfigError(f"--listen {address} cannot be listened on: is it in use, or of another host?") from error

    def _answered(self, method: str, content: bytes, metadata: Any) -> bytes:
        if method == JOIN:
            return self._let_in(content, metadata)
        worker = self._admitted(metadata)
        if method == LEAVE:
            assert self._door is not None
            self._door.go(worker, content)
            return b"{}"
        self.leases.heard(worker)
        request, response = self._methods[method]
        try:
            asked = request.FromString(content)
        except Exception as error:  # a foreign message raises whatever its parser does
            raise _Refused(Code.INVALID_ARGUMENT, f"this is no {request.__name__}") from error
        do: Callable[..., Any] = getattr(self, f"_{method}")
        if method in ("GetSpace", "UpdateSpace"):  # never waits for the oracle: by it workers show that they live
            return _content(do(response, asked))
        with self._oracle._alone():
            self._admitted(metadata)  # its process may have ended while we waited
            return _content(do(response, asked, worker, metadata))

    def _let_in(self, content: bytes, metadata: Any) -> bytes:
        assert self._door is not None
        if not self._door.knows(wire.sender(metadata)[1]):
            raise _Refused(Code.UNAUTHENTICATED, "this is no token of the search")
        worker = self._door.come(content)
        address = self.admit(worker)
        return json.dumps({"worker": worker, "token": address.token, "told": self._door.told}).encode()

    def _admitted(self, metadata: Any) -> str:
        """The worker that calls."""
        worker, token = wire.sender(metadata)
        known = self._tokens.get(worker, "")
        if not known or not hmac.compare_digest(known.encode(), token.encode()):
            raise _Refused(Code.UNAUTHENTICATED, "the search does not know this worker")
        return worker

    def _GetSpace(self, response: Any, asked: Any) -> Any:  # noqa: N802 - named as the methods are
        return self._space

    def _UpdateSpace(self, response: Any, asked: Any) -> Any:  # noqa: N802
        """The space was found before the search began: only what is in it may be said again."""
        space, known = asked.hyperparameters.space, self._space.hyperparameters.space
        if _entries(space) + len(asked.hyperparameters.values.values) > _MOST_ENTRIES:
            _refuse(f"a space has up to {_MOST_ENTRIES} entries")
        for kind in ("float_space", "int_space", "choice_space", "boolean_space", "fixed_space"):
            if any(entry not in getattr(known, kind) for entry in getattr(space, kind)):
                _refuse("the space of a search cannot be changed")
        return response()

    def _CreateTrial(self, response: Any, asked: Any, worker: str, _: Any) -> Any:  # noqa: N802
        if asked.tuner_id != worker:
            _refuse(f"{worker} asks for a trial under another name")
        self.leases.lost.discard(worker)
        trial = self._oracle.create_trial(worker)
        if trial.status == "STOPPED" and self._oracle.ongoing_trials:
            trial.status = "IDLE"  # a worker may yet be lost, and then its trial is to be done
        return response(trial=wire.to_proto(trial))

    def _UpdateTrial(self, response: Any, asked: Any, worker: str, metadata: Any) -> Any:  # noqa: N802
        self._check_holder(worker, asked.trial_id)
        metrics = wire.read_metrics(dict(asked.metrics), metadata)
        return response(trial=wire.to_proto(self._oracle.update_trial(asked.trial_id, metrics, step=asked.step)))

    def _EndTrial(self, response: Any, asked: Any, worker: str, _: Any) -> Any:  # noqa: N802
        self._check_holder(worker, asked.trial.trial_id)
        self._oracle.end_trial(self._oracle.trials[asked.trial.trial_id])
        self.ended[worker] += 1
        return response()

    def _GetTrial(self, response: Any, asked: Any, *_: Any) -> Any:  # noqa: N802
        self._check_id(asked.trial_id)
        return response(trial=wire.to_proto(self._oracle.get_trial(asked.trial_id)))

    def _GetBestTrials(self, response: Any, asked: Any, *_: Any) -> Any:  # noqa: N802
        if not 1 <= asked.num_trials <= _MOST_TRIALS:
            _refuse(f"num_trials must be from 1 to {_MOST_TRIALS}")
        return response(trials=[wire.to_proto(trial) for trial in self._oracle.get_best_trials(asked.num_trials)])

    def _check_id(self, trial: str) -> None:
        if len(trial) > _MOST_ID or trial not in self._oracle.trials:
            _refuse(f"there is no trial {trial[:_MOST_ID]!r}")

    def _check_holder(self, worker: str, trial: str) -> None:
        """That a trial is this worker's: a late call of one that lost it must not count."""
        self._check_id(trial)
        held = self._oracle.ongoing_trials.get(worker)
        if held is None or held.trial_id != trial:
            raise _Refused(Code.FAILED_PRECONDITION, f"trial {trial} is not {worker}'s any more")


def _content(message: Any) -> bytes:
    found: bytes = message.SerializeToString()
    return found


def _entries(space: Any) -> int:
    return sum(len(found) for _, found in space.ListFields())


def _refuse(why: str) -> NoReturn:
    raise _Refused(Code.INVALID_ARGUMENT, why)
