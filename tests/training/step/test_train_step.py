"""The graph side of training: traced once, exact by hand, and still where a loss is not finite."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from replica_copies import copies
from steps import placed_on, spec_of
from steps import steps_of as made_steps

from tfmb.backend import keras, tf
from tfmb.data.batches import Order, stream
from tfmb.data.source import Source
from tfmb.errors import ConfigError, DivergenceError
from tfmb.optimizers import SGD, Adam, Optimizer
from tfmb.training import trainer
from tfmb.training.execution import step_cache
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.training.input.pipeline import configured
from tfmb.training.loop.hooks import Hooks
from tfmb.training.loop.plan import TrainingPlan, add_up
from tfmb.training.loop.reports import EpochReport, UpdatesReport
from tfmb.training.scoring import Validation
from tfmb.training.step.partition import make_partition
from tfmb.training.step.partitioned_update import PartitionedUpdate
from tfmb.training.step.train_step import Steps
from tfmb.training.step.whole_update import WholeUpdate

layers = keras.layers


def line(strategy: Any, weights: tuple[float, float] = (0.5, -0.25), **options: Any) -> Any:
    """y = w x + b of two inputs, with b = 0."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), layers.Dense(1, **options)])
    model.set_weights([np.array(weights, "float32")[:, np.newaxis], np.zeros(1, "float32")])
    return model


def steps_of(
    model: Any, optimizer: Optimizer | None, strategy: Any, loss: Any = "mse", metrics: Any = None, parts: Any = "auto"
) -> Steps:
    partition = make_partition(strategy.num_replicas_in_sync, parts, None, None)
    return made_steps(model, optimizer, strategy, loss=loss, metrics=metrics, partition=partition)


def is_whole(steps: Steps) -> bool:
    """Whether Keras's own objects do a whole batch; else its parts are added up, and reports tell more."""
    return isinstance(steps.update, WholeUpdate)


def logs(steps: Steps, reports: Any) -> dict[str, Any]:
    return steps.logs(np.array(add_up(None, np.asarray(reports))))


def batches(x: Any, y: Any, size: int) -> Any:
    source = Source.from_arrays(np.asarray(x, "float32"), np.asarray(y, "float32"))
    return stream(source, Order(num_examples=source.size, batch_size=size, seed=0, shuffle=False))


@pytest.mark.parametrize("parts", ["auto", 2])
def test_one_update_by_hand(strategy: Any, parts: Any) -> None:
    # Predictions 0 and 0.5, residuals -1 and 0.5: gradients (0.5, 0) and -0.5, all exact in binary.
    model, optimizer = line(strategy), SGD(0.125)
    steps = steps_of(model, optimizer, strategy, metrics=["mae"], parts=parts)
    steps.begin()
    reports, finite = steps.train(batches([[1, 2], [3, 4]], [[1], [0]], 2), tf.constant(1))
    assert bool(finite)
    assert is_whole(steps) == (parts == "auto" and strategy.num_replicas_in_sync == 1)
    # The loss, the rows; of a cut batch the loss times the rows, one batch, the output's loss, the metric's sum and
    # count; not clipped; made.
    partition = [] if is_whole(steps) else [1.25, 1, 0.625, 1.5, 2]
    np.testing.assert_array_equal(reports, [[0.625, 2, *partition, 0, 1]])
    assert logs(steps, reports) == {"loss": 0.625, "mae": 0.75}
    for copy in copies(model.trainable_variables[0].value):
        np.testing.assert_array_equal(copy, [[0.4375], [-0.25]])
    for copy in copies(model.trainable_variables[1].value):
        np.testing.assert_array_equal(copy, [0.0625])
    assert copies(optimizer.iterations)[0] == 1


@pytest.mark.slow
def test_one_trace_a_model_is_no_retracing(strategy: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(9):
        steps = steps_of(line(strategy), SGD(0.125), strategy)
        steps.train(batches([[1, 2], [3, 4]], [[1], [0]], 2), tf.constant(1))
        steps.evaluate(batches([[1, 2], [3, 4]], [[1], [0]], 2), tf.constant(1))
    assert "retracing" not in caplog.text


def test_regularizer_by_hand(strategy: Any) -> None:
    # The same batch with 0.5 * |w|^2: the loss grows by 0.15625, the gradient of w by w.
    model = line(strategy, kernel_regularizer=keras.regularizers.L2(0.5))
    steps = steps_of(model, SGD(0.125), strategy)
    steps.begin()
    reports, _ = steps.train(batches([[1, 2], [3, 4]], [[1], [0]], 2), tf.constant(1))
    np.testing.assert_array_equal(reports, [[0.78125, 2, *([] if is_whole(steps) else [1.5625, 1, 0.625]), 0, 1]])
    assert logs(steps, reports) == {"loss": 0.78125}
    np.testing.assert_array_equal(model.get_weights()[0], [[0.5 - 0.125 * 1.0], [-0.25 + 0.125 * 0.25]])


def test_rows_of_several_steps_and_of_evaluation(strategy: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=(5, 2)), np.ones((5, 1))
    steps = steps_of(line(strategy), SGD(0.0), strategy, metrics=["mae", keras.metrics.MeanSquaredError()])
    found = []
    for work in (lambda *given: steps.train(*given)[0], steps.evaluate):
        steps.begin()
        rows = work(batches(x, y, 2), tf.constant(3)).numpy()
        found.append((rows, logs(steps, rows)))
    (trained, after_training), (scored, after_scoring) = found
    errors = 1 - x @ [0.5, -0.25]
    expected = {"loss": np.mean(errors**2), "mae": np.mean(abs(errors)), "mean_squared_error": np.mean(errors**2)}
    assert after_training == pytest.approx(expected, rel=1e-6)
    assert after_scoring == pytest.approx(expected, rel=1e-6)
    for row, score, part in zip(trained, scored, (errors[:2], errors[2:4], errors[4:]), strict=True):
        loss, size = float(np.mean(part**2)), len(part)
        more = [loss * size, 1, loss, abs(part).sum(), size, loss * size, size]
        if is_whole(steps):
            np.testing.assert_allclose(row, [loss, size, 0, 1], 1e-5)
            np.testing.assert_array_equal(score, [0, size, 0, 0])  # the loss is in Keras's totals
        else:
            np.testing.assert_allclose(row, [loss, size, *more, 0, 1], 1e-5)
            np.testing.assert_allclose(score, [loss, size, *more], 1e-5)


def test_evaluation_changes_nothing(strategy: Any) -> None:
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(1)])
    before = [v.numpy() for v in model.variables]
    steps = steps_of(model, None, strategy)
    found = []
    for _ in range(2):
        steps.begin()
        reports = steps.evaluate(batches(np.eye(2), [[1], [2]], 2), tf.constant(2))
        found.append((reports.numpy(), logs(steps, reports)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert set(found[0][1]) == {"loss"}
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


class _Watch:
    """Records the numbers of steps of the calls, and lowers the rate after each."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.calls: list[int] = []

    def updates_made(self, report: UpdatesReport) -> None:
        self.calls.append(len(report.losses))
        self.optimizer.learning_rate *= 0.9

    def epoch_ended(self, report: EpochReport) -> None:
        pass


@pytest.mark.compile
@pytest.mark.parametrize("metrics", [None, ["mae"]], ids=["loss", "metrics by name"])
def test_training_is_traced_once(strategy: Any, metrics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Steps] = []

    def spy(*arguments: Any, **named: Any) -> Steps:
        made.append(Steps(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(step_cache, "Steps", spy)
    x, y = np.random.default_rng(0).normal(size=(37, 2)).astype("float32"), np.ones((37, 1), "float32")
    source = Source.from_arrays(x, y, np.linspace(0, 1, 37, dtype="float32"))
    pipelines = [ArrayPipeline(source, Order(num_examples=37, batch_size=size, seed=0)) for size in (8, 37)]
    model, optimizer = line(strategy), SGD(0.1)
    watch = _Watch(optimizer)
    placed, plan = placed_on(model, optimizer, strategy), TrainingPlan(epochs=4, log_every=3)
    on_device = configured(pipelines[0], on_device=True)
    trainer.train(
        placed,
        spec_of(strategy, metrics=metrics),
        on_device,
        plan,
        Hooks(loggers=[watch]),
        validation=Validation(pipeline=pipelines[1]),
    )
    (steps,) = made
    assert len(set(watch.calls)) > 1
    assert optimizer.learning_rate < 0.1
    for count in (1, 4):  # other iterators, other numbers of steps
        steps.train(pipelines[1].epoch(0).iterator, tf.constant(count))
    for function in (steps._train_function, steps._rows, steps._evaluate_function):
        assert function.experimental_get_tracing_count() == 1


def normed(strategy: Any) -> Any:
    keras.utils.set_random_seed(3)
    with strategy.scope():
        return keras.Sequential([keras.Input((2,)), layers.BatchNormalization(), layers.Dense(1)])


def infinite_loss() -> tuple[np.ndarray, np.ndarray]:
    """24 rows; the square of the 17th one's error overflows float32."""
    x, y = np.random.default_rng(0).normal(size=(24, 2)), np.ones((24, 1))
    y[16] = 1e30
    return x, y


def infinite_gradient() -> tuple[np.ndarray, np.ndarray]:
    """24 rows; the 17th one's error times its second input overflows float32, but not its square, if that weighs 0."""
    x, y = np.random.default_rng(0).normal(size=(24, 2)), np.ones((24, 1))
    x[:, 1] = 0
    x[16, 1], y[16] = 1e30, 1e18
    return x, y


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:with several replicas")
def test_update_that_is_not_finite_is_not_made(strategy: Any) -> None:
    x, y = infinite_loss()
    expected, stopped = normed(strategy), normed(strategy)
    reference, optimizer = Adam(0.25), Adam(0.25)
    as_it_was = steps_of(expected, reference, strategy, metrics=["mae"])
    as_it_was.begin()
    reports, finite = as_it_was.train(batches(x, y, 8), tf.constant(2))
    assert bool(finite)
    steps = steps_of(stopped, optimizer, strategy, metrics=["mae"])
    iterator = batches(x, y, 8)
    steps.begin()
    rows, finite = steps.train(iterator, tf.constant(5))
    assert not bool(finite)
    assert len(rows) == 3  # it drew no further batch
    np.testing.assert_array_equal(rows[:2], reports)
    assert not np.isfinite(rows[2, 0])
    assert rows[2, -1] == 0
    assert logs(steps, rows[:2]) == logs(as_it_was, reports)
    np.testing.assert_array_equal(next(iterator)[0], x[:8].astype("float32"))
    for model, other in ((stopped, optimizer), (expected, reference)):
        assert len(model.variables) == 6
        assert copies(other.iterations)[0] == 2
    assert len(steps.update.state) == (4 if is_whole(steps) else 0)  # Keras's totals of the loss and the metric
    ours = [v.value for v in stopped.variables] + optimizer.variables + steps.update.state
    theirs = [v.value for v in expected.variables] + reference.variables + as_it_was.update.state
    for a, b in zip(ours, theirs, strict=True):
        for copy in copies(a):
            np.testing.assert_array_equal(copy, copies(b)[0])


@pytest.mark.parametrize("data", [infinite_loss, infinite_gradient])
def test_divergence_tells_where(strategy: Any, data: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
    x, y = data()
    source = Source.from_arrays(x.astype("float32"), y.astype("float32"))
    pipeline = ArrayPipeline(source, Order(num_examples=24, batch_size=8, seed=0, shuffle=False))
    model, losses = line(strategy, (0.5, 0.0)), _Losses()
    optimizer = SGD(lambda count: 0.125 / tf.cast(count + 1, tf.float64))
    placed = placed_on(model, optimizer, strategy)
    with pytest.raises(DivergenceError) as caught:
        trainer.train(placed, spec_of(strategy), pipeline, TrainingPlan(epochs=1), Hooks(loggers=[losses]))
    error = caught.value
    assert (error.update, error.exit_code) == (3, 3)
    assert error.learning_rate == pytest.approx(0.125 / 3)
    again = steps_of(line(strategy, (0.5, 0.0)), SGD(0.125), strategy)
    again.train(batches(x, y, 8), tf.constant(1))
    errors = y[8:16] - again.placed.model(x[8:16].astype("float32")).numpy()
    assert error.last_loss == pytest.approx(np.mean(errors**2), rel=1e-5)
    assert f"{error.last_loss:.6g}" in str(error)
    assert all(np.isfinite(loss) for loss in losses.seen)


class _Losses:
    def __init__(self) -> None:
        self.seen: list[float] = []

    def updates_made(self, report: UpdatesReport) -> None:
        self.seen += report.losses

    def epoch_ended(self, report: EpochReport) -> None:
        pass


def test_loss_that_does_not_depend_on_the_model_is_refused(strategy: Any) -> None:
    def constant(y_true: Any, y_pred: Any) -> Any:
        return tf.zeros_like(y_pred[:, 0])

    steps = steps_of(line(strategy), SGD(0.1), strategy, loss=constant)
    with pytest.raises(ConfigError, match="no gradient for any variable"):
        steps.train(batches(np.eye(2), [[1], [2]], 2), tf.constant(1))


def test_gradients_of_one_output_leave_the_other_heads_weights(strategy: Any) -> None:
    with strategy.scope():
        inputs = keras.Input((2,))
        model = keras.Model(inputs, [layers.Dense(1, name="used")(inputs), layers.Dense(1, name="idle")(inputs)])
    before = model.get_weights()
    steps = steps_of(model, SGD(0.1), strategy, loss={"used": "mse", "idle": None})
    y = tuple(np.ones((2, 1), "float32") for _ in range(2))
    dataset = tf.data.Dataset.from_tensors((np.eye(2, dtype="float32"), y, ()))
    steps.train(iter(dataset.repeat()), tf.constant(2))
    after = model.get_weights()
    assert not np.array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[2], before[2])


@pytest.mark.parametrize("parts", ["auto", 2])
@pytest.mark.parametrize(
    ("loss", "metrics", "words"),
    [("nope", None, "nope"), ("mse", ["nope"], "nope"), (None, None, "loss")],
    ids=["loss", "metric", "nothing"],
)
def test_what_keras_does_not_know_is_refused_before_a_step(loss: Any, metrics: Any, words: str, parts: Any) -> None:
    where = tf.distribute.get_strategy()

    def step() -> None:
        steps = steps_of(line(where), SGD(0.1), where, loss=loss, metrics=metrics, parts=parts)
        steps.train(batches(np.eye(2), [[1], [2]], 2), tf.constant(1))

    with pytest.raises(ConfigError, match=words):
        step()


def test_whole_batches_are_kerass_and_others_are_added_up(two_replicas: Any) -> None:
    one = tf.distribute.get_strategy()
    found = [
        type(steps_of(line(where), SGD(0.1), where, parts=parts).update)
        for where, parts in ((one, "auto"), (one, 1), (one, 2), (two_replicas, "auto"))
    ]
    assert found == [WholeUpdate, WholeUpdate, PartitionedUpdate, PartitionedUpdate]
    noisy = made_steps(line(one), SGD(0.1), one, noise_scale=True)
    assert type(noisy.update) is PartitionedUpdate
