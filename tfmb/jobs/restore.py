"""A finished run's directory -> its record, its model with the trained weights, its data. No code is loaded from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmb.choices import MODEL_NAMES
from tfmb.data import Splits, load
from tfmb.data.source import Normalization
from tfmb.errors import ConfigError, DataError
from tfmb.jobs import build
from tfmb.jobs.config import TrainConfig
from tfmb.runs.run_dir import load_weights
from tfmb.runs.run_record import RUN_FILE, read_run

__all__ = ["RestoredRun", "restore_run"]


@dataclass(frozen=True, kw_only=True)
class RestoredRun:
    """A run, as its directory describes it.

    Attributes:
        run_dir: where it lies.
        record: `run.json`.
        config: its options; None for a run that `tfmb.fit` made.
        model: with the trained weights.
    """

    run_dir: Path
    record: dict[str, Any]
    config: TrainConfig | None
    model: Any

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.run_dir.resolve().name

    @property
    def logits(self) -> bool | None:
        """True if the model is one of ours, which end in logits; None if it is the user's."""
        return True if self.config is not None and not self.config.own_model else None

    def splits(self, data: str | None = None, mirror: str | None = None) -> Splits:
        """Loads the run's data again.

        Args:
            data: the user's `module:load`, to be named again where the run had one.
            mirror: a folder with the files that TFDS would download.

        Raises:
            ConfigError: the data is the user's own and was not named, or an option that belongs to other data.
            DataError: it is not the data the run was trained on.
        """
        about = self.record.get("data") or {}
        if self.config is None or self.config.own_data:
            named = f" (it was {self.config.dataset})" if self.config is not None else ""
            if data is None:
                raise ConfigError(
                    f"{self.run_dir} was trained on data of your own{named}: give --dataset module:function"
                )
            return load(data, mirror)
        if data is not None:
            trained_on = about.get("name") or self.config.dataset
            raise ConfigError(f"--dataset {data}, but {self.run_dir} was trained on {trained_on}: leave --dataset out")
        dataset = self.config.dataset if self.config.dataset != "auto" else str(about.get("name"))
        splits = load(dataset, mirror or self.config.mirror)
        if splits.test is not None and splits.test.fingerprint != about.get("test_fingerprint"):
            raise DataError(
                f"the test split of {dataset} is not the one {self.run_dir} was scored on: the data changed"
            )
        return splits


def restore_run(run_dir: str | Path, model: str | None = None) -> RestoredRun:
    """Reads a run's record, builds its model and puts the trained weights in.

    Args:
        run_dir: made by `tfmb train`, or by `tfmb.fit(..., run_dir=...)`.
        model: the user's `module:build`, to be named again where the run's model is not one of ours.

    Raises:
        ConfigError: the model is the user's own and was not named.
        DataError: the run is missing, unfinished or damaged.
    """
    run_dir = Path(run_dir)
    record = read_run(run_dir)
    where = str(run_dir / RUN_FILE)
    config = None
    if record.get("made_by") == "tfmb train":
        config = TrainConfig.from_dict(record["config"], where)
    checksum = record.get("weights_sha256")
    if record.get("status") != "finished" or not isinstance(checksum, str):
        raise DataError(f"{run_dir}: the run is {record.get('status', 'damaged')!r}, not finished: go on with --resume")
    about = record.get("model")
    if not isinstance(about, dict):
        raise DataError(f"{where}: the record has no model: the run is damaged")
    built = _build(about, config, model, run_dir)
    weights = load_weights(run_dir, checksum)
    expected = [tuple(v.shape) for v in built.weights]
    if expected != [w.shape for w in weights]:
        raise DataError(
            f"{run_dir}: the weights do not fit the model {built.name!r}: name the model it was trained with"
        )
    built.set_weights(weights)
    return RestoredRun(run_dir=run_dir, record=record, config=config, model=built)


def _build(about: dict[str, Any], config: TrainConfig | None, model: str | None, run_dir: Path) -> Any:
    if config is None or config.own_model:
        named = f" (it was {config.model})" if config is not None else ""
        if model is None:
            raise ConfigError(f"{run_dir} holds a model of your own{named}: give --model module:function")
        precision = None if config is None else config.precision
        return build.build_model(model, None, None, None, precision=precision)
    if model is not None and model != config.model_name:
        raise ConfigError(f"--model {model}, but {run_dir} holds {config.model_name}: leave --model out")
    shape, norm, classes = about.get("input_shape"), about.get("normalization"), (about.get("num_classes"))
    whole = isinstance(shape, list) and all(isinstance(n, int) and 0 < n < 2**16 for n in shape)
    if config.model_name not in MODEL_NAMES or not whole or not isinstance(classes, int) or not 0 < classes < 2**20:
        raise DataError(f"{run_dir / RUN_FILE}: the record of the model makes no sense: the run is damaged")
    try:
        normalization = None if norm is None else Normalization(mean=float(norm["mean"]), std=float(norm["std"]))
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{run_dir / RUN_FILE}: the record of the model makes no sense: the run is damaged") from error
    assert isinstance(shape, list)
    return build.build_model(
        config.model_name,
        tuple(shape),
        classes,
        normalization,
        seed=config.seed,
        dropout=config.dropout,
        precision=config.precision,
    )
