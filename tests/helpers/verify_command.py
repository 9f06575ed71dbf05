"""The command line in a process of its own, which finds the modules that this one finds."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["tfmb_command"]


def tfmb_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs `tfmb` with these arguments."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "tfmb", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=400)
