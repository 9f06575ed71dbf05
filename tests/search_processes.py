"""The worker processes of a search, as the system sees them."""

import subprocess
from pathlib import Path


def workers_of(chief: int) -> list[int]:
    """The process ids of a chief's workers."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(chief)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "tfmb.tuning.worker" in line]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
