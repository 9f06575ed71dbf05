"""One and two replicas of a run: the same bits where batches are cut into virtual replicas, else within a tolerance."""

from tfmb.errors import ConfigError
from tfmb.layers import Dropout
from tfmb.types import KerasModel
from tfmb.verification.checks import Check, failed, not_applicable, passed
from tfmb.verification.faults import largest_difference
from tfmb.verification.problem import batch_norms, in_precision, without_random_numbers
from tfmb.verification.subject import Subject
from tfmb.verification.trainings import Trained, fit_subject, values_of, why_not_64_bits

__all__ = ["BITS", "REPLICAS", "TOLERANCE", "check_bits", "check_tolerance"]

BITS, TOLERANCE = "replica invariance, to the bit", "replica invariance, within a tolerance"
REPLICAS = 2
_FLOAT64, _FLOAT32 = 1e-11, 1e-6


def check_bits(subject: Subject) -> Check:
    """Checks, with `virtual_replicas`, that one and two replicas give the same bits in the run's own precision."""
    parts = subject.virtual_replicas
    parts = REPLICAS if parts is None or parts % REPLICAS else parts
    try:
        one, two = (
            fit_subject(subject, prepare=_without_stock_dropout, replicas=n, virtual_replicas=parts)
            for n in (1, REPLICAS)
        )
    except ConfigError as error:
        return not_applicable(BITS, str(error))
    about = f"virtual_replicas={parts}, {subject.updates} updates of {subject.batch_size}, 1 and {REPLICAS} replicas"
    if not two.copies_agree():
        return failed(BITS, f"{about}: the replicas' copies of a variable differ", ("replicas drift apart",))
    differing = [a.tobytes() != b.tobytes() for a, b in zip(one.state(), two.state(), strict=True)]
    if any(differing):
        return failed(BITS, f"{about}: {sum(differing)} of {len(differing)} variables differ")
    return passed(BITS, f"{about}: all bits of {len(differing)} variables are equal")


def check_tolerance(subject: Subject) -> Check:
    """Checks, without `virtual_replicas`, one part a device, in 64 bits if the model allows it."""
    if norms := batch_norms(subject.make_model(None)):
        reason = f"{norms[0]} normalises by each part's own statistics: virtual_replicas gives the same bits"
        return not_applicable(TOLERANCE, reason)
    why = why_not_64_bits(subject)
    precision, limit = ("float64", _FLOAT64) if why is None else ("float32", _FLOAT32)
    with in_precision(precision):
        pair = _pair(subject, precision)
    difference = largest_difference(values_of(pair[1].model), values_of(pair[0].model))
    about = f"one part a device, {subject.updates} updates of {subject.batch_size}, 1 and {REPLICAS} replicas"
    about = f"{about}, {precision}{'' if why is None else f' ({why})'}: largest difference {difference:.1e}"
    if not pair[1].copies_agree():
        return failed(TOLERANCE, f"{about}: the replicas' copies of a variable differ", ("replicas drift apart",))
    if difference <= limit:
        return passed(TOLERANCE, f"{about}, within {limit:g}")
    if difference <= _FLOAT32:
        return passed(TOLERANCE, f"{about}, within {_FLOAT32:g}: something in it is computed in 32 bits")
    return failed(TOLERANCE, f"{about}, over {limit:g}")


def _pair(subject: Subject, precision: str) -> tuple[Trained, Trained]:
    one, two = (
        fit_subject(subject, precision=precision, prepare=without_random_numbers, replicas=n) for n in (1, REPLICAS)
    )
    return one, two


def _without_stock_dropout(model: KerasModel) -> None:
    """Ours stays on: its masks do not depend on the devices."""
    ours = [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, Dropout)]
    rates = [layer.rate for layer in ours]
    without_random_numbers(model)
    for layer, rate in zip(ours, rates, strict=True):
        layer.rate = rate
