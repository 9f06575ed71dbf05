"""Checkpoints whose checksums are right and whose contents are not; records with odd values."""

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

__all__ = ["change", "dumps", "forge", "forge_index", "sign"]

_MANIFEST = "MANIFEST.json"
_ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, math.inf, math.nan, "", "x", "../x",
    "/etc/passwd", "\n", "\x1b[31m", "\ud800", "a" * 5000, [], [1], [[]], {}, {"x": 1}, [2**40, 2**40], [None] * 3,
    "float32", ["int64", [1]],
]  # fmt: skip
_DEEP = "\0deep\0"


def forge(step: Path, draw: random.Random) -> None:
    """Changes a checkpoint's folder and makes its checksums right again."""
    about = json.loads((step / _MANIFEST).read_text())
    match draw.randrange(6):
        case 0:
            _forge_index(step / "state.index", draw)
        case 1:
            path = step / draw.choice(["state.index", "state.data-00000-of-00001"])
            content = bytearray(path.read_bytes())
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        case 2:
            name = draw.choice(["../x", "/etc/passwd", "..", "a\nb", "\x1b[2J", "\ud800", "x" * 300, "", "sub/x"])
            about["files"][name] = {"size": 0, "sha256": hashlib.sha256().hexdigest()}
        case 3:
            about["tensors"][draw.choice(list(about["tensors"]))] = draw.choice(
                [["float32", [2**40, 2**40]], ["float64", [3, 4]], ["float32", [-1]], ["object", []], 1, None, []]
            )
        case 4 if draw.random() < 0.2:
            step.rename(step.with_name(f"step-{draw.randrange(10**12):012d}"))
            return
        case _:
            change(about, draw)
    sign(step, about)


def forge_index(step: Path, draw: random.Random) -> None:
    """Changes the index only."""
    _forge_index(step / "state.index", draw)
    sign(step, json.loads((step / _MANIFEST).read_text()))


def sign(step: Path, about: Any) -> None:
    """Writes a manifest with the checksums of what is there."""
    if isinstance(about, dict):
        if isinstance(about.get("files"), dict):
            for path in step.iterdir():
                if path.name in about["files"] and path.is_file():
                    content = path.read_bytes()
                    about["files"][path.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        about.pop("sha256", None)
        text = dumps(about, sort_keys=True)
        about["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (step / _MANIFEST).write_text(dumps(about))


def change(tree: dict[str, Any], draw: random.Random) -> None:
    """Puts odd values at one or two places of a tree, or takes them or their names away."""
    for _ in range(draw.choice([1, 1, 2])):
        places = list(_places(tree))
        holder, key = draw.choice(places)
        match draw.randrange(10):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[draw.choice(["x", "", "__class__", "self", "\n"])] = draw.choice(_ODD)
            case 2:
                holder[key] = _DEEP + str(draw.choice([50, 300, 900, 990, 5000, 10**6]))
            case _:
                holder[key] = draw.choice(_ODD)
        if not tree:
            return


def dumps(tree: Any, **options: Any) -> str:
    """JSON, with very deep trees where `change` asked for them."""
    text = json.dumps(tree, **options)
    while (at := text.find(json.dumps(_DEEP)[:-1])) >= 0:
        end = text.index('"', at + 1)
        depth = int(text[at:end].rpartition("\\u0000")[2])
        text = text[:at] + '{"a": ' * depth + "1" + "}" * depth + text[end + 1 :]
    return text


def _places(tree: Any) -> Any:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from _places(tree[key])


def _forge_index(path: Path, draw: random.Random) -> None:
    """Changes the block of names, dtypes, shapes and places in TensorFlow's index, and makes its CRC right."""
    content = bytearray(path.read_bytes())
    end = _varint(content[-48:]) - 5  # the next block begins after a byte for the kind and four for the CRC
    for _ in range(draw.choice([1, 1, 2, 4])):
        content[draw.randrange(end)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
    crc = _crc32c(content[: end + 1])
    content[end + 1 : end + 5] = (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")
    path.write_bytes(content)


def _varint(content: bytes | bytearray) -> int:
    value = 0
    for number, byte in enumerate(content):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            break
    return value


def _crc32c(content: bytes | bytearray) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
