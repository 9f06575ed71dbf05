"""Damage to any file, drawn at random."""

import os
import random
from pathlib import Path

__all__ = ["damage"]


def damage(path: Path, draw: random.Random, other: Path | None = None) -> None:
    """Does one thing to a file."""
    content = bytearray(path.read_bytes())
    at = draw.randrange(len(content) + 1)
    match draw.randrange(13 if other else 12):
        case 0 | 1 | 2:
            for _ in range(draw.choice([1, 1, 1, 2, 9])):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        case 3 | 4:
            del content[at:]
        case 5:
            content += draw.randbytes(draw.choice([1, 4, 100]))
        case 6:
            del content[at : at + draw.randrange(1, 30)]
        case 7:
            content[at:at] = draw.randbytes(draw.randrange(1, 30))
        case 8:
            content[at : at + 16] = bytes(len(content[at : at + 16]))
        case 9:
            content.clear()
        case 10:
            content = bytearray(draw.randbytes(len(content)))
        case 11:
            _replace(path, draw)
            return
        case _:
            assert other is not None
            content = bytearray(other.read_bytes())
    path.write_bytes(content)


def _replace(path: Path, draw: random.Random) -> None:
    """Puts something else in a file's place."""
    content = path.read_bytes()
    path.unlink()
    match draw.randrange(6):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(path.parent / "nowhere")
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            (path.parent.parent / "elsewhere").write_bytes(content)
            path.symlink_to(path.parent.parent / "elsewhere")
        case _:
            pass  # it is gone
