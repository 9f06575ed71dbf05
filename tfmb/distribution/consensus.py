"""The values that several workers agree on before they go on together; a single process agrees with itself."""

from collections.abc import Callable
from typing import Any

from tfmb.backend import tf
from tfmb.distribution.strategy import is_multi_worker
from tfmb.errors import DataError
from tfmb.types import Strategy

__all__ = ["check_same", "of_first_worker", "reason_of_any"]


def of_first_worker(number: int, strategy: Strategy) -> int:
    """Returns the first worker's number, on every worker; it must be below 2**53."""
    return int(_total(strategy, only_first=True)(number)) if is_multi_worker(strategy) else number


def check_same(number: int, strategy: Strategy, what: str) -> None:
    """Refuses to go on where the workers have different numbers.

    Raises:
        DataError: on every worker, saying `what` they differ in.
    """
    if not is_multi_worker(strategy):
        return
    first = of_first_worker(number, strategy)
    if _total(strategy)(float(number != first)):
        raise DataError(
            f"the workers differ in {what} (this one has {number}, the first one {first}): give a run directory that "
            "all of them see"
        )


def reason_of_any(reason: Callable[[], str | None], strategy: Strategy) -> Callable[[], str | None]:
    """Returns the agreed `reason`: each worker ends at the same update once any of them was asked to."""
    if not is_multi_worker(strategy):
        return reason
    total = _total(strategy)

    def of_any() -> str | None:
        own = reason()
        if not total(float(own is not None)):
            return None
        return own or "another worker was asked to end"

    return of_any


def _total(strategy: Strategy, only_first: bool = False) -> Callable[[float], float]:
    """Returns a function that adds a number up over all replicas, or takes the first's; every worker must call it."""

    @tf.function(autograph=False)
    def add(own: Any) -> Any:
        def on_replica() -> Any:
            context = tf.distribute.get_replica_context()
            counts = tf.equal(context.replica_id_in_sync_group, 0) if only_first else True
            return context.all_reduce("sum", tf.where(counts, own, tf.zeros_like(own)))

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    return lambda number: float(add(tf.constant(number, tf.float64)))
