"""`tfmb.patch_keras`: Keras's `fit`, `evaluate` and `predict` are ours, for programs that stay as they are."""

import contextlib
import functools
import inspect
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tfmb.choices import check_counts
from tfmb.environment.console import say
from tfmb.environment.old_names import refuse_old_names
from tfmb.errors import ConfigError, TfmbError
from tfmb.patching.import_hook import call_after_import
from tfmb.runs.run_record import RUN_FILE

__all__ = ["KerasPatch", "patch_keras"]

_METHODS = ("fit", "evaluate", "predict")
# What `tfmb.fit` takes by name that belongs to one call, or that `run_dir` here decides.
_OF_ONE_CALL = ("optimizer", "loss", "metrics", "run_dir", "resume")
# By which Keras's own `fit` says that `evaluate` shall score the validation data that it keeps.
_KERASS_VALIDATION = "_use_cached_eval_dataset"


def patch_keras(run_dir: str | Path | None = None, strict: bool = False, **options: Any) -> "KerasPatch":
    """Replaces `keras.Model.fit`, `evaluate` and `predict` by ours inside a `with` block, as `tfmb run` does.

    Our methods take the arguments of Keras's methods, and by name the further arguments of `tfmb.fit`, `tfmb.evaluate`
    and `tfmb.predict`. If ours refuses a call before anything was trained or drawn, Keras's own method makes the call,
    and a line on standard error says why. A model's own `fit` is called; its `super().fit` is ours.

    Args:
        run_dir: a folder for the runs: the first `fit` has `run_dir/fit-1`, the next one `run_dir/fit-2`. A program
            that is started again goes on with its runs. A finished run gives the model its weights and the History. A
            run that was stopped goes on exactly where it stopped. A `fit` that a callback of another `fit` calls has no
            run. None writes nothing.
        strict: whether a call that ours refuses is an error.
        **options: arguments of `tfmb.fit` for every call, by name, such as `virtual_replicas`. `strategy` and
            `devices` also hold for `evaluate` and `predict`. From a `seed` each `fit` gets a seed of its own.

    Returns:
        A context manager. The methods are Keras's own again after the block, whatever was raised in it.

    Raises:
        ConfigError: `tfmb.fit` has no such argument.

    Example:
        >>> with tfmb.patch_keras(virtual_replicas=4):
        ...     history = model.fit(x, y, epochs=2, verbose=0)
        >>> sorted(history.history)
        ['accuracy', 'loss']
    """
    return KerasPatch(run_dir, strict, options)


class KerasPatch:
    """The patch that `patch_keras` returns.

    Args:
        run_dir: see `patch_keras`.
        strict: see `patch_keras`.
        options: see `patch_keras`.

    Raises:
        ConfigError: an option that belongs to one call.
    """

    _in_force: "KerasPatch | None" = None

    def __init__(self, run_dir: str | Path | None, strict: bool, options: dict[str, Any]) -> None:
        for name in _OF_ONE_CALL:
            if name in options:
                raise ConfigError(f"patch_keras({name}=...) is not for all calls: give it to the model's own fit")
        # Now, because the program may change its folder.
        self._run_dir = None if run_dir is None else Path(run_dir).expanduser().absolute()
        self._strict = strict
        self._options = options
        self._before: dict[str, Any] = {}
        self._fits = self._calls = 0
        self._is_named = options.get("strategy", "auto") != "auto" or options.get("devices") is not None
        self._is_settled = False
        self._told: set[str] = set()
        self._waiting: list[Callable[[], None]] = []
        self.refused: TfmbError | None = None  # the error of an option for all calls that cannot be honoured

    def __enter__(self) -> Self:
        """Replaces the methods.

        Raises:
            ConfigError: they are replaced already, an option cannot be honoured, or Keras's backend is another one.
        """
        from tfmb.backend import keras

        _check_options(self._options, self._run_dir is not None)
        self._replace(keras)
        return self

    def leave(self) -> None:
        """Puts Keras's methods back, where they were replaced, and waits no longer to replace them."""
        for forget in self._waiting:
            forget()
        if KerasPatch._in_force is self:
            self.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts Keras's methods back."""
        from tfmb.backend import keras

        KerasPatch._in_force = None
        for name, method in self._before.items():
            if method is None:
                delattr(keras.Model, name)
            else:
                setattr(keras.Model, name, method)

    def enter_when_imported(self) -> None:
        """Replaces the methods as soon as the program has imported Keras, which it may want to prepare for.

        Raises:
            ConfigError: they are replaced already.
        """
        no_keras = functools.partial(self._refuse_all, "tf_keras is Keras 2, and tfmb needs Keras 3")
        for name, enter in (("keras", self._enter_if_possible), ("tf_keras", no_keras)):
            self._waiting.append(call_after_import(name, self._noting_refusals()(enter)))

    def _enter_if_possible(self) -> None:
        import keras

        if keras.config.backend() != "tensorflow":
            self._refuse_all(f"Keras's backend is {keras.config.backend()}, and tfmb needs tensorflow")
            return
        self.__enter__()

    @contextlib.contextmanager
    def _noting_refusals(self) -> Iterator[None]:
        try:
            yield
        except TfmbError as error:
            self.refused = error
            raise

    def _refuse_all(self, reason: str) -> None:
        if self._strict:
            raise ConfigError(f"fit, evaluate and predict cannot be replaced: {reason}")
        say(f"fit, evaluate and predict stay Keras's own: {reason}")

    def _replace(self, keras: Any) -> None:
        if KerasPatch._in_force is not None:
            raise ConfigError("Keras's methods are replaced already: leave the inner patch_keras out")
        from tfmb.distribution.multi_worker import workers_of_environment
        from tfmb.distribution.strategy import make_cpu_devices

        strategy = self._options.get("strategy", "auto")
        if strategy == "multi-worker" or (strategy == "auto" and workers_of_environment() > 1):
            self._settle()  # workers are joined before the program builds a model, or never
        elif (self._options.get("devices") or 1) > 1:
            make_cpu_devices(self._options["devices"])
        self._before = {name: keras.Model.__dict__.get(name) for name in _METHODS}
        for name in _METHODS:
            setattr(keras.Model, name, self._method(name, getattr(keras.Model, name)))
        KerasPatch._in_force = self

    def _method(self, name: str, theirs: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(theirs)
        def method(model: Any, *args: Any, **kwargs: Any) -> Any:
            frame = inspect.currentframe()
            caller = None if frame is None else frame.f_back
            where = "" if caller is None else f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}: "
            del frame, caller  # which would keep the caller's variables alive
            return self._call(name, theirs, where, model, args, kwargs)

        return method

    def _call(
        self, name: str, theirs: Callable[..., Any], where: str, model: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Makes the call by ours, or by Keras's own method if ours refuses it before anything has begun."""
        from tfmb.training.fit import fit
        from tfmb.training.inference import evaluate, predict
        from tfmb.training.keras_api.method_calls import as_method, within

        by_name: dict[str, Callable[..., Any]] = {"fit": fit, "evaluate": evaluate, "predict": predict}
        ours = by_name[name]
        if _KERASS_VALIDATION in kwargs:
            return theirs(model, *args, **kwargs)
        number = 0
        if name == "fit" and not within("fit"):
            # Counted whoever makes it: a program that is started again must find its runs by their numbers.
            self._fits += 1
            number = self._fits
        self._settle()
        seed = self._seed(number) if name == "fit" else None
        given = {**self._options_of(seed, number, "run_dir" in kwargs), **kwargs}
        try:
            inspect.signature(ours).bind(model, *args, **given)
        except TypeError:
            return theirs(model, *args, **kwargs)  # and raises, in the words that the program knows
        run_dir = given.get("run_dir") if number else None
        has_run, is_there = _looked_at(run_dir)
        with as_method(model, name, seed) as call:
            try:
                return ours(model, *args, **given)
            except ConfigError as error:
                by_ours_alone = set(kwargs) - set(inspect.signature(theirs).parameters)
                if call.begun or has_run or self._strict or by_ours_alone:
                    raise
                reason = str(error)
        if run_dir is not None and not is_there:
            shutil.rmtree(run_dir, ignore_errors=True)  # what ours had begun to make: no run of anybody's
        line = " ".join(f"{where}Keras's own {name}: {reason}".split())
        if line not in self._told:
            self._told.add(line)
            say(line)
        return theirs(model, *args, **kwargs)

    def _settle(self) -> None:
        """Makes the strategy that was named, once: one that cannot be made is no refusal of a call.

        Raises:
            ConfigError: there is none such here, or its devices do not divide the virtual replicas.
        """
        from tfmb.distribution.multi_worker import workers_of_environment
        from tfmb.distribution.strategy import make_strategy
        from tfmb.training.step.partition import make_partition

        if self._is_settled or (not self._is_named and workers_of_environment() == 1):
            return  # else each model has the strategy that it was built under
        options = dict(self._options)
        with self._noting_refusals():
            made = make_strategy(options.pop("strategy", "auto"), options.pop("devices", None))
            if options.get("micro_batch_size") is None:
                make_partition(made.num_replicas_in_sync, options.get("virtual_replicas", "auto"), None, None)
        self._options, self._is_settled = {**options, "strategy": made}, True

    def _seed(self, number: int) -> int:
        """Returns a new seed for each `fit`, without moving Python's `random`, which decides it."""
        from tfmb.seeds import derive

        self._calls += 1
        seed = self._options.get("seed")
        if seed is None:
            state = random.getstate()
            seed = random.randrange(2**31)
            random.setstate(state)
        return derive(seed, "fit", number) if number else derive(seed, "fit within", self._calls)

    def _options_of(self, seed: int | None, number: int, has_run_dir: bool) -> dict[str, Any]:
        """Returns the options of a call besides its own arguments; a call with a seed is a `fit`."""
        if seed is None:
            return {key: value for key, value in self._options.items() if key == "strategy" and self._is_named}
        options = dict(self._options)
        if options.get("seed") is not None:
            options["seed"] = seed
        if self._run_dir is not None and number and not has_run_dir:
            options |= {"run_dir": self._run_dir / f"fit-{number}", "resume": True}
        return options


def _looked_at(run_dir: Any) -> tuple[bool, bool]:
    """Returns whether a run was begun in a folder, and whether there is anything of that name."""
    if run_dir is None:
        return False, False
    folder = Path(run_dir)
    return (folder / RUN_FILE).exists(), folder.exists()


def _check_options(options: dict[str, Any], has_run_dir: bool) -> None:
    """Refuses what no call could honour: a call would be left to Keras for it.

    Raises:
        ConfigError: an unknown name, or a value that makes no sense.
    """
    from tfmb.training.execution.jit_trial import parse_jit_compile
    from tfmb.training.fit import fit
    from tfmb.training.fit_arguments import check_on_divergence
    from tfmb.training.step.partition import make_partition

    named = [parameter.name for parameter in inspect.signature(fit).parameters.values() if parameter.kind is _BY_NAME]
    refuse_old_names(options)
    for name in options:
        if name not in named:
            raise ConfigError(f"patch_keras has no option {name!r}: give one of tfmb.fit's, such as virtual_replicas")
    parts, rows = options.get("virtual_replicas", "auto"), options.get("micro_batch_size")
    make_partition(1, parts, rows, None if rows is None else 1)
    parse_jit_compile(options.get("jit_compile", "auto"))
    counts = ("devices", "prefetch", "checkpoint_every", "keep_checkpoints")
    check_counts(numpy=True, optional=True, **{name: options[name] for name in counts if name in options})
    check_on_divergence(options.get("on_divergence", "stop"), has_run_dir)
    check_counts(0, optional=True, seed=options.get("seed"))


_BY_NAME = inspect.Parameter.KEYWORD_ONLY
