"""An update by a model's own `train_step`: the loop gives it batches, and keeps the variables that it moves."""

import warnings
from typing import Any

from tfmb.backend import keras, tf
from tfmb.distribution.strategy import makes_copies
from tfmb.errors import DivergenceError
from tfmb.layers import part_of_batch
from tfmb.optimizers.optimizer import raw_variable
from tfmb.training.input.elements import as_keras_gives_it
from tfmb.training.step import report as reports
from tfmb.training.step.last_logs import plain_logs
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.whole_update import WholeUpdate, rows_of
from tfmb.training.step.written_variables import StateVariable, captured_by, operations_of
from tfmb.types import Batch, Data, KerasModel, Tensor

__all__ = ["OwnUpdate"]

# Operations that draw from a generator which no variable holds, or that run Python: no checkpoint has their state.
_UNSEEN = {
    **dict.fromkeys(
        [
            "RandomGamma", "RandomPoisson", "RandomPoissonV2", "RandomShuffle", "RandomStandardNormal",
            "RandomUniform", "RandomUniformInt", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial",
        ],
        "tf.random (use keras.random with a SeedGenerator)",
    ),
    **dict.fromkeys(["PyFunc", "PyFuncStateless", "EagerPyFunc"], "a Python function (tf.py_function)"),
}  # fmt: skip


class OwnUpdate(WholeUpdate):
    """Trains by a model's own `train_step`, in the cross-replica context; it scores as `WholeUpdate` does.

    The optimizers, losses, metrics and variables are the model's. All variables that the traced step touches are state:
    they are in checkpoints. An update has been made when its losses are known: one that is not finite ends the training
    after it.

    Args:
        placed: the model as it was compiled, on one device or under the strategy that it was built under; its
            optimizer counts the steps, and is None if the model is only scored.
        spec: XLA compiles whole steps, or nothing.
        mask_keys: see `WholeUpdate`.
    """

    def __init__(self, placed: PlacedModel, spec: StepSpec, mask_keys: Tensor) -> None:
        super().__init__(placed, spec, mask_keys, None, xla_on_cpu=False)
        self._touched: list[StateVariable] = []
        self._kinds: set[str] = set()

    def choose(self, training: bool) -> None:
        """Chooses training or scoring as the next work, if nothing is traced beforehand."""
        self._own_logs = self._logs[training]

    def prepare(self, batch: Batch, training: bool) -> None:
        """Traces the step once, so that all variables it makes exist, and finds what it touches. Call it eagerly."""
        self.choose(training)
        if not training or str(batch) in self._kinds:
            return
        self._kinds.add(str(batch))
        if makes_copies(self.model.distribute_strategy):
            # As `fit` does: metrics cannot be made on replicas. Elsewhere the step itself makes what it needs.
            self.model._maybe_symbolic_build(data_batch=as_keras_gives_it(batch))
        before = _plain_attributes(self.model)
        graph = tf.function(lambda part: self.train(part), autograph=False).get_concrete_function(batch).graph
        for variable in captured_by(graph):
            if not any(variable.is_same(other) for other in self._touched):
                self._touched.append(variable)
        self.unseen = sorted({_UNSEEN[kind] for kind in operations_of(graph) & set(_UNSEEN)})
        after = _plain_attributes(self.model)
        if changed := sorted(name for name in after if name not in before or after[name] != before[name]):
            warnings.warn(
                f"{type(self.model).__name__}.train_step changes {', '.join(changed)} in Python, when it is traced and "
                "not at each step: keep it in a variable",
                stacklevel=3,
            )

    @property
    def state(self) -> list[StateVariable]:
        """All variables that the traced step touches, besides the model's and the count."""
        assert self.optimizer is not None
        known = [raw_variable(v) for v in (*self.model.variables, *self.optimizer.variables)]
        return [variable for variable in self._touched if not any(variable.is_of(v) for v in known)]

    def train(self, batch: Batch) -> tuple[Any, Any]:
        """Makes one step; returns `(report [4], whether to draw on)`."""
        assert self.optimizer is not None
        here = self._whole_batch(tf.identity(self.optimizer.iterations))
        data = as_keras_gives_it(batch)
        rows = rows_of(data)
        with part_of_batch(here):
            logs = self._on_replicas(self.model.train_step, data, rows)
        self.optimizer.iterations.assign_add(1)
        self._own_logs.take(logs, self.model, own_step=True)
        losses = [tf.cast(tf.reduce_mean(logs[name]), self.dtype) for name in losses_of(logs)]
        judged = [] if self.lets_diverge else losses
        finite = tf.reduce_all([tf.math.is_finite(loss) for loss in judged]) if judged else tf.constant(True)
        loss = losses[0] if losses else tf.zeros([], self.dtype)
        return reports.of_whole_batch(loss, rows, clipped=False, applied=True, dtype=self.dtype), finite

    def check(self) -> None:
        """Refuses a step whose losses were not finite.

        Raises:
            DivergenceError: always, for the update was made.
        """
        assert self.optimizer is not None
        update = int(self.optimizer.iterations.numpy())
        rate = float(self.optimizer.rate_at(self.optimizer.iterations))
        raise DivergenceError(
            f"update {update} at learning rate {rate:g}: a loss is NaN or infinite, and {type(self.model).__name__}."
            "train_step has made the update: try a lower learning rate, or begin anew from weights that you saved",
            update=update,
            learning_rate=rate,
            last_loss=None,
        )

    def first_gradients(self, batch: Batch) -> Any:
        """Refuses the call: the step does not show its gradients."""
        raise NotImplementedError(f"{type(self.model).__name__}.train_step does not show its gradients")

    def score(self, batch: Batch) -> Any:
        """Scores a batch by the model's `test_step`; returns its report."""
        data = as_keras_gives_it(batch)
        rows = rows_of(data)
        self._own_logs.take(self._on_replicas(self.model.test_step, data, rows), self.model, own_step=True)
        return reports.of_whole_batch(0.0, rows, clipped=False, applied=False, dtype=self.dtype)

    def _on_replicas(self, of_keras: Any, data: Data, rows: Tensor) -> dict[str, Any]:
        """A step's logs; on several devices, as in Keras, each works on a share and the logs are their mean."""
        # The model's own, by which Keras's optimizers know where they were made; on one device it is often none.
        strategy = self.model.distribute_strategy
        if not makes_copies(strategy):
            return plain_logs(strategy.run(of_keras, args=(data,)), self.model)
        count = strategy.num_replicas_in_sync

        def step() -> Any:
            context = tf.distribute.get_replica_context()
            number = context.replica_id_in_sync_group
            # The first ones have one more where the rows cannot be shared evenly, as TensorFlow shares them.
            start = number * (rows // count) + tf.minimum(number, rows % count)
            end = start + rows // count + tf.cast(number < rows % count, tf.int32)
            return plain_logs(
                of_keras(keras.tree.map_structure(lambda part: None if part is None else part[start:end], data)),
                self.model,
            )

        local = strategy.experimental_local_results
        return {name: tf.reduce_mean(tf.stack(local(value)), axis=0) for name, value in strategy.run(step).items()}


def losses_of(logs: dict[str, Any]) -> list[str]:
    """Returns the names of logs that are losses; `loss` comes first."""
    names = [name for name, value in logs.items() if "loss" in name.lower() and value.dtype.is_floating]
    return sorted(names, key=lambda name: name != "loss")


def _plain_attributes(model: KerasModel) -> dict[str, Any]:
    plain = (bool, int, float, str)
    own = {name: value for name, value in vars(model).items() if isinstance(value, plain) and not name.startswith("_")}
    own.pop("built", None)  # which Keras sets
    return own
