"""A `tf.distribute` strategy from a name, and logical CPU devices to try replicas on any machine."""

from typing import Any

from tfmb.backend import tf
from tfmb.config import STRATEGY_NAMES
from tfmb.errors import ConfigError

__all__ = ["configure_replicas", "describe", "make_strategy"]


def configure_replicas(replicas: int) -> None:
    """Makes `replicas` logical CPU devices, so that replicas can be tried without a GPU.

    Call it before anything makes TensorFlow start, such as building a model. They share the machine's cores: more
    of them show that an answer does not depend on the number of devices; they do not make it come sooner.

    Args:
        replicas: the number of devices, at least 1.

    Raises:
        ConfigError: TensorFlow has started with another number of devices.
    """
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
        raise ConfigError(f"replicas={replicas!r} must be an integer of at least 1")
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * replicas
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError as error:
        found = len(tf.config.list_logical_devices("CPU"))
        if found != replicas:
            raise ConfigError(
                f"TensorFlow has started with {found} logical CPU device(s), too late to make {replicas}: "
                f"call tfmb.configure_replicas({replicas}) first, before any model is built"
            ) from error


def make_strategy(strategy: Any = "auto", replicas: int | None = None) -> Any:
    """The `tf.distribute.Strategy` of a name.

    Args:
        strategy: `"auto"` (every GPU; without one, `replicas` logical CPU devices, or one device), `"one-device"`,
            `"mirrored"` (every GPU, or every logical CPU device), or a `tf.distribute.Strategy`, taken as it is.
        replicas: how many of these devices; None for all of them, or for one CPU with `"auto"`.

    Returns:
        A one-device or mirrored strategy.

    Raises:
        ConfigError: an unknown name, a strategy that is not supported, or more replicas than devices.
    """
    if replicas is not None and (isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1):
        raise ConfigError(f"replicas={replicas!r} must be an integer of at least 1")
    if isinstance(strategy, tf.distribute.Strategy):
        return _check_given(strategy, replicas)
    if strategy not in STRATEGY_NAMES:
        raise ConfigError(
            f"unknown strategy {strategy!r}: give {', '.join(STRATEGY_NAMES)} or a tf.distribute.Strategy"
        )
    if strategy == "one-device" and replicas not in (None, 1):
        raise ConfigError(f"strategy 'one-device' has one replica, not {replicas}: give strategy='mirrored'")
    gpus = tf.config.list_physical_devices("GPU")
    if strategy == "one-device" or (strategy == "auto" and (replicas == 1 or (not gpus and replicas is None))):
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    return _mirrored("GPU" if gpus else "CPU", replicas)


def describe(strategy: Any) -> dict[str, Any]:
    """The strategy's class, its number of replicas and its devices, for records."""
    return {
        "name": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "devices": [str(device).rsplit("device:", 1)[-1] for device in strategy.extended.worker_devices],
    }


def _check_given(strategy: Any, replicas: int | None) -> Any:
    allowed = (tf.distribute.OneDeviceStrategy, tf.distribute.MirroredStrategy)
    if type(strategy) not in allowed and strategy is not tf.distribute.get_strategy():
        raise ConfigError(
            f"{type(strategy).__name__} is not supported yet: give a OneDeviceStrategy or a MirroredStrategy"
        )
    if replicas not in (None, strategy.num_replicas_in_sync):
        raise ConfigError(
            f"replicas={replicas}, but the strategy given has {strategy.num_replicas_in_sync}: leave one out"
        )
    return strategy


def _mirrored(kind: str, replicas: int | None) -> Any:
    if kind == "CPU" and replicas is not None and replicas > 1:
        _make_devices(replicas)
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if replicas is not None and replicas > len(devices):
        raise ConfigError(f"replicas={replicas}, but there are {len(devices)} {kind} device(s): ask for fewer")
    # Collectives between logical CPU devices abort when a process uses two group sizes; this way they do not.
    cross_device_ops = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    return tf.distribute.MirroredStrategy(devices[:replicas], cross_device_ops=cross_device_ops)


def _make_devices(replicas: int) -> None:
    """Makes logical CPU devices if TensorFlow has not started; else there must be enough."""
    try:
        configure_replicas(replicas)
    except ConfigError:
        if len(tf.config.list_logical_devices("CPU")) < replicas:
            raise
