"""The results of a verification: checks that passed, failed or did not apply, each with its figures or its reason."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["FAILED", "NOT_APPLICABLE", "PASSED", "Check", "Report", "failed", "not_applicable", "passed"]

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"
Status = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison.

    Attributes:
        name: the name of the comparison.
        status: `"passed"`, `"failed"` or `"not applicable"`.
        detail: the figures, or the reason why it does not apply.
        diagnosis: the faults that explain a failure, by name; empty if none does.
    """

    name: str
    status: Status
    detail: str
    diagnosis: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        named = f": {' and '.join(self.diagnosis)}" if self.diagnosis else ""
        return f"{self.status:<15} {self.name}{named} ({self.detail})"


@dataclass(frozen=True, kw_only=True)
class Report:
    """All checks of one target.

    Attributes:
        target: the thing that was verified.
        checks: in the order they were made.
    """

    target: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed, and at least one could be made."""
        statuses = {check.status for check in self.checks}
        return FAILED not in statuses and PASSED in statuses

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == FAILED)

    @property
    def diagnosis(self) -> tuple[str, ...]:
        """The names of all faults found, each once."""
        return tuple(dict.fromkeys(name for check in self.failed for name in check.diagnosis))

    def check(self, name: str) -> Check:
        """The check of that name.

        Raises:
            KeyError: there is none.
        """
        return {check.name: check for check in self.checks}[name]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON can hold it."""
        checks = [{**asdict(check), "diagnosis": list(check.diagnosis)} for check in self.checks]
        return {"target": self.target, "passed": self.passed, "diagnosis": list(self.diagnosis), "checks": checks}

    def __str__(self) -> str:
        """A line a check, then the verdict."""
        counts = {status: sum(c.status == status for c in self.checks) for status in (PASSED, FAILED, NOT_APPLICABLE)}
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        verdict = "verified" if self.passed else "NOT verified"
        return "\n".join([*map(str, self.checks), f"{self.target}: {verdict}: {told}"])


def passed(name: str, detail: str) -> Check:
    """A check that passed, with its figures."""
    return Check(name=name, status="passed", detail=detail)


def failed(name: str, detail: str, diagnosis: tuple[str, ...] = ()) -> Check:
    """A check that failed, with its figures and what explains them."""
    return Check(name=name, status="failed", detail=detail, diagnosis=diagnosis)


def not_applicable(name: str, reason: str) -> Check:
    """A check that could not be made, and why."""
    return Check(name=name, status="not applicable", detail=reason)
