"""What a ledger says, as text: outcomes, findings, and the shares that the drawing and the refusals are held to."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .judging import FINDINGS

__all__ = ["LEAST_SHARE", "MOST_REFUSED", "refused_share", "report", "shares"]

# Each layer, loss and optimizer stands in so many of the programs; of those that fit trains, no more may be refused.
LEAST_SHARE, MOST_REFUSED = 0.05, 0.02


def report(lines: list[dict[str, Any]]) -> str:
    """The text for the lines of a ledger."""
    said = []
    for side in ("whole", "cut"):
        counts = Counter(line[side] for line in lines)
        said.append(f"{side}: {', '.join(f'{count} {outcome}' for outcome, count in counts.most_common())}")
    few = {name: share for name, share in shares(lines).items() if share < LEAST_SHARE}
    said.append(f"in less than {LEAST_SHARE:.0%} of the programs: {_listed(few) or 'nothing'}")
    said.append(f"refused of what fit trains, whole: {refused_share(lines):.2%} (at most {MOST_REFUSED:.0%})")
    for side in ("whole", "cut"):
        for outcome in (*FINDINGS, "refused", "both raise", "set apart"):
            said += _grouped([line for line in lines if line[side] == outcome], side, outcome)
    return "\n".join(said)


def shares(lines: list[dict[str, Any]]) -> dict[str, float]:
    """The share of programs in which each layer, loss and optimizer stands."""
    counts = Counter(name for line in lines for name in line["uses"])
    return {name: counts[name] / len(lines) for name in sorted(counts)}


def refused_share(lines: list[dict[str, Any]]) -> float:
    """The share of the programs that fit trains and we, whole, refuse."""
    trained = [line for line in lines if line["whole"] in ("alike", "refused", *FINDINGS[:2], *FINDINGS[3:])]
    return sum(line["whole"] == "refused" for line in trained) / max(len(trained), 1)


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1%}" for name, value in values.items())


def _grouped(lines: Iterable[dict[str, Any]], side: str, outcome: str) -> list[str]:
    groups: dict[str, list[int]] = {}
    for line in lines:
        groups.setdefault(re.sub(r"\d+", "#", line[f"{side}_about"]), []).append(line["seed"])
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [f"{side} {outcome}, {len(seeds)}: {about} (seeds {seeds[:6]})" for about, seeds in ordered]
