"""The searches of Optuna and Ray Tune around `keras.Model.fit`, on given trials."""

import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

__all__ = ["optuna_search", "ray_search"]

Data = tuple[tuple[Any, Any], tuple[Any, Any], Any]


def train(values: list[Any], data: Data, build: Callable[[Any], Any], epochs: int, callbacks: list[Any]) -> float:
    """Trains one trial by `fit`; returns its best validation loss."""
    import keras

    (x, y), validation, normalization = data
    model = build(normalization)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(values[1]), loss, metrics=["accuracy"])
    history = model.fit(
        x, y, batch_size=values[0], epochs=epochs, validation_data=validation, verbose=0, callbacks=callbacks
    )
    return float(min(history.history["val_loss"]))


def optuna_search(values: list[Any], data: Data, build: Callable[[Any], Any], epochs: int) -> dict[str, Any]:
    """The trials as a study, with Optuna's own pruner."""
    import keras
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    batches = sorted({value[0] for value in values})

    class Reports(keras.callbacks.Callback):
        def __init__(self, trial: Any) -> None:
            super().__init__()
            self._trial = trial

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self._trial.report(logs["val_loss"], epoch)
            if self._trial.should_prune():
                raise optuna.TrialPruned

    def objective(trial: Any) -> float:
        batch = trial.suggest_categorical("batch_size", batches)
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        return train([batch, rate], data, build, epochs, [Reports(trial)])

    started = time.perf_counter()
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner())
    for batch, rate in values:
        study.enqueue_trial({"batch_size": batch, "learning_rate": rate})
    study.optimize(objective, n_trials=len(values))
    seconds = time.perf_counter() - started
    found = [[t.params["batch_size"], t.params["learning_rate"]] for t in study.trials]
    return {"seconds": seconds, "values": found, "scores": [t.value for t in study.trials], "overheads": []}


def ray_search(values: list[Any], data: Data, build: Callable[[Any], Any], epochs: int) -> dict[str, Any]:
    """The trials as a grid of Ray Tune's, one at a time, as the others run them."""
    import ray
    from ray import tune

    started = time.perf_counter()
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    kept = ray.put(data)

    def trainable(config: dict[str, Any]) -> dict[str, float]:
        return {"val_loss": train(config["values"], ray.get(kept), build, epochs, [])}

    folder = tempfile.mkdtemp()
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 2}),
        param_space={"values": tune.grid_search(values)},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(verbose=0, storage_path=folder),
    )
    results = tuner.fit()
    seconds = time.perf_counter() - started
    found = [results[number] for number in range(len(results))]
    scores = {tuple((result.config or {})["values"]): (result.metrics or {})["val_loss"] for result in found}
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    return {"seconds": seconds, "values": values, "scores": [scores[tuple(v)] for v in values], "overheads": []}
