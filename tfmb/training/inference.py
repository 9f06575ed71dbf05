"""`tfmb.evaluate` and `tfmb.predict`: Keras's, under any strategy, exact over ragged batches."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras.src.backend.tensorflow.trainer import potentially_ragged_concat

from tfmb.backend import keras, tf
from tfmb.data.batches import part_bounds
from tfmb.data.records import telling_what_cannot_be_read
from tfmb.distribution.multi_worker import naming_lost_peers
from tfmb.distribution.strategy import is_multi_worker, make_strategy, needs_static_shapes
from tfmb.errors import ConfigError
from tfmb.training import scoring
from tfmb.training.callbacks.evaluate_callbacks import InferenceCallbacks
from tfmb.training.callbacks.loggers import format_logs
from tfmb.training.execution.placement import built_under, place
from tfmb.training.execution.step_cache import kept
from tfmb.training.input.data_adapter import DEFAULT_BATCH_SIZE, scoring_pipeline, verbose_level
from tfmb.training.input.inference_batches import Batches, input_batches
from tfmb.training.keras_api.compile_args import check_model, compiled_with, in_order, read_compiled
from tfmb.training.keras_api.limits import limited_steps, steps_of_execution
from tfmb.training.keras_api.method_calls import begins
from tfmb.training.keras_api.overridden_methods import called_anywhere, has_own, through_own
from tfmb.training.step.own_step import has_own_test_step
from tfmb.training.step.partition import check_dense, rows_of_part, static_rows
from tfmb.training.step.spec import PlacedModel
from tfmb.types import Data, KerasModel, Strategy, Tensor

__all__ = ["evaluate", "predict"]


@called_anywhere
def evaluate(
    model: KerasModel,
    x: Data = None,
    y: Data = None,
    batch_size: int | None = None,
    verbose: str | int = "auto",
    sample_weight: Data = None,
    steps: int | None = None,
    callbacks: Any = None,
    return_dict: bool = False,
    *,
    loss: Any = None,
    metrics: Any = None,
    strategy: Strategy = "auto",
    devices: int | None = None,
) -> Any:
    """`keras.Model.evaluate`, with the model as its first argument.

    Args:
        model: a built `keras.Model`; compiled, unless `loss` is given.
        x: inputs, or batches of them with their targets, as in `tfmb.fit`.
        y: targets, where `x` makes no batches.
        batch_size: examples per batch. None is 32, or with `steps` the size that makes this many batches of the arrays.
        verbose: 0 shows nothing; any other value shows the result in a line on standard error.
        sample_weight: weights `[n]` of the examples.
        steps: the number of batches to score; None for all.
        callbacks: Keras callbacks.
        return_dict: whether to return a dict by name.
        loss: as in `compile`; None for the compiled one.
        metrics: as in `compile`; None for the compiled ones.
        strategy: as in `tfmb.fit`, except that `"auto"` uses this process alone.
        devices: as in `tfmb.fit`.

    Returns:
        The loss, or a list of the loss and the metrics in the order of `compile`, or a dict of them by name.

    Raises:
        ConfigError: an argument that cannot be honoured.
        DataError: data that makes no sense.
        PeerLostError: another worker died or hangs.

    Example:
        >>> sorted(tfmb.evaluate(model, x, y, return_dict=True))
        ['accuracy', 'loss']
    """
    if has_own(model, "evaluate"):
        return through_own(model, "evaluate", evaluate, dict(locals()))
    check_model(model, "evaluate", "make_test_function")
    loss_and_metrics = read_compiled(model).with_given(loss, metrics)
    where = make_strategy(built_under(model, strategy, devices, joins=False), devices, joins=False)
    limit, whole = limited_steps(steps, "steps"), has_own_test_step(model)
    executed = steps_of_execution(model)
    pipeline = scoring_pipeline(x, y, sample_weight, batch_size, limit, "x", "steps", whole=whole, executed=executed)
    with naming_lost_peers(where):
        placed = place(model, where, pipeline.first_inputs())
        callback_hook = InferenceCallbacks(callbacks, model, placed, _params(verbose, limit or pipeline.steps))
        with compiled_with(model, loss_and_metrics):
            on_devices = PlacedModel(model=placed, strategy=where, original=model)
            logs = scoring.evaluate(on_devices, loss_and_metrics, pipeline, callback_hook)
            values = in_order(model, logs)
    if verbose_level(verbose):
        print(format_logs(logs), file=sys.stderr, flush=True)
    if return_dict:
        return logs
    return values


@called_anywhere
def predict(
    model: KerasModel,
    x: Data,
    batch_size: int | None = None,
    verbose: str | int = "auto",
    steps: int | None = None,
    callbacks: Any = None,
    *,
    strategy: Strategy = "auto",
    devices: int | None = None,
) -> Any:
    """`keras.Model.predict`, with the model as its first argument. Every device predicts its rows of each batch.

    Args:
        model: a built `keras.Model`.
        x: inputs, or batches of them, as in `tfmb.fit`. Targets in the batches are not used.
        batch_size: examples per batch. None is 32, or with `steps` the size that makes this many batches of the arrays.
        verbose: any value that Keras takes. Nothing is shown.
        steps: the number of batches to predict; None for all.
        callbacks: Keras callbacks.
        strategy: as in `tfmb.fit`, except that `"auto"` uses this process alone.
        devices: as in `tfmb.fit`.

    Returns:
        NumPy arrays `[n, ...]` in the structure of the model's outputs, in the examples' order. As in Keras, an output
        is a `tf.RaggedTensor` if its shape differs between batches. An output that is no tensor is returned as it is.

    Raises:
        ConfigError: an argument that cannot be honoured.
        DataError: data that makes no sense.
        PeerLostError: another worker died or hangs.

    Example:
        >>> tfmb.predict(model, x[:5]).shape
        (5, 2)
    """
    if has_own(model, "predict"):
        return through_own(model, "predict", predict, dict(locals()))
    check_model(model, "predict", "make_predict_function")
    where = make_strategy(built_under(model, strategy, devices, joins=False), devices, joins=False)
    own_step = type(model).predict_step is not keras.Model.predict_step
    limit = limited_steps(steps, "steps")
    batches = input_batches(x, batch_size, limit, whole=own_step, executed=steps_of_execution(model))
    with naming_lost_peers(where):
        placed = place(model, where, batches.first_inputs)
    rows = (
        static_rows(batches.dataset.element_spec)
        if needs_static_shapes(where) and batches.batch_size is None
        else (batches.batch_size or DEFAULT_BATCH_SIZE)
    )
    on_all = kept(placed, "_tfmb_predictor", where, rows, lambda: _predictor(placed, where, rows))
    callback_hook = InferenceCallbacks(callbacks, model, placed, _params(verbose, limit or batches.number))
    begins()
    callback_hook.predict_begin()
    found = _predictions(batches, on_all, callback_hook)
    callback_hook.call("on_predict_end")
    if not found:
        raise ConfigError("there is nothing to predict: the data has no batch")
    return keras.tree.map_structure(lambda *parts: _joined(parts), *found)


def _predictions(batches: Batches, on_all: Any, callback_hook: InferenceCallbacks) -> list[Any]:
    """The outputs of all batches, as often as callbacks look at them."""
    found: list[Any] = []
    some: list[Any] = []  # what the callbacks have not seen yet
    with telling_what_cannot_be_read(), batches.drawn(lambda: not callback_hook.stop_predicting) as drawn:
        for step, inputs in enumerate(drawn):
            if not some:
                callback_hook.call("on_predict_batch_begin", step)
            some.append(on_all(inputs))
            if len(some) == callback_hook.steps_between_looks or step + 1 == batches.number:
                found += _shown(callback_hook, step - len(some) + callback_hook.steps_between_looks, some)
                some = []
            if callback_hook.stop_predicting:
                break
        if some:
            found += _shown(callback_hook, step - len(some) + callback_hook.steps_between_looks, some)
    return found


def _shown(callback_hook: Any, step: int, outputs: list[Any]) -> list[Any]:
    """Shows the callbacks the outputs of some batches, the last of them number `step`; returns them on the host."""
    one = outputs[0]
    if len(outputs) > 1:
        one = keras.tree.map_structure(lambda *parts: potentially_ragged_concat(list(parts)), *outputs)
    callback_hook.call("on_predict_batch_end", step, {"outputs": one})
    return [keras.tree.map_structure(_on_host, one)]


def _on_host(output: Any) -> Any:
    return output if isinstance(output, (tf.RaggedTensor, tf.SparseTensor)) else output.numpy()


def _joined(parts: Sequence[Any]) -> Any:
    """The outputs of all batches as one."""
    if all(isinstance(part, np.ndarray) and part.ndim for part in parts) and len({p.shape[1:] for p in parts}) == 1:
        return np.concatenate(parts)
    tensors = [tf.constant(part) if isinstance(part, (np.ndarray, np.generic)) else part for part in parts]
    return _on_host(potentially_ragged_concat(tensors))


def _predictor(placed: KerasModel, where: Strategy, rows: int) -> Any:
    """The compiled function from a batch of inputs to the outputs.

    Args:
        placed: a model whose variables are where the strategy can read them.
        where: the strategy.
        rows: of a batch that is filled up, where shapes must be static.
    """
    # Every worker wants all of the answer, so each works it out: one exchange less, and none that can fail.
    count = 1 if is_multi_worker(where) else where.num_replicas_in_sync
    static = needs_static_shapes(where)

    def on_replica(inputs: Any, size: Tensor) -> Any:
        if count > 1:
            number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
            inputs, _ = rows_of_part(inputs, *part_bounds(size, number, count), count, static, False)
        return placed.predict_step(inputs)

    def join(size: Tensor, value: Any) -> Any:
        """Joins the replicas' outputs one after the other, without the rows that filled up a part."""
        bounds = [part_bounds(size, number, count) for number in range(count)]
        found = where.experimental_local_results(value)[:count]
        return tf.concat([part[: stop - start] for part, (start, stop) in zip(found, bounds, strict=True)], 0)

    def on_all(inputs: Any) -> Any:
        if count == 1 and not static:  # whatever the batch is made of
            outputs = where.run(placed.predict_step, args=(inputs,))
            return keras.tree.map_structure(lambda value: where.experimental_local_results(value)[0], outputs)
        check_dense(inputs)
        size = tf.shape(keras.tree.flatten(inputs)[0])[0]
        if static:
            places = tf.minimum(tf.range(rows), size - 1)
            inputs = keras.tree.map_structure(lambda tensor: tf.gather(tensor, places), inputs)
        outputs = where.run(on_replica, args=(inputs, size))
        return keras.tree.map_structure(lambda value: join(size, value), outputs)

    return tf.function(on_all, autograph=False, reduce_retracing=True)


def _params(verbose: str | int, steps: int | None) -> dict[str, Any]:
    return {"verbose": verbose_level(verbose), "epochs": 1, "steps": steps}
