"""Damaged and hostile files, made from a seed: each is refused in one line, or gives what its bytes say."""

import gzip
import json
import random
import resource
import shutil
import signal
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forged
import fuzz_records
import numpy as np
import tiny_run
from damaged import damage

from tfmb.data.idx import load_idx_folder, read_idx
from tfmb.errors import ConfigError, DataError, StorageError
from tfmb.runs import run_dir as runs
from tfmb.serving import provenance
from tfmb.storage import cache, checksums

__all__ = ["KINDS", "batch"]

_SECONDS = 10
_BYTES = 2**30
_LIVE = 7  # the state before a restore
_WEIGHTS: list[Any] = [np.arange(12, dtype="float32").reshape(3, 4), np.arange(3, dtype="int64"), np.float32(2.5)]


def batch(kind: str, first: int, count: int, folder: str) -> None:
    """Prints a line for each seed: "refused", "equal", or what is wrong; runs in a process of its own."""
    make, look = KINDS[kind]
    place = Path(folder)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    original = place / "original"
    original.mkdir()
    make(original)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _BYTES, held + _BYTES))  # a bomb hits this, not the machine
    signal.signal(signal.SIGALRM, _late)
    for seed in range(first, first + count):
        copy = place / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        print(f"{seed} begins", flush=True)
        print(f"{seed} {_one(look, copy, random.Random(seed))}", flush=True)


class _HungError(BaseException):
    """Not an `Exception`, which some readers catch."""


def _late(*_: Any) -> None:
    raise _HungError


def _one(look: Callable[[Path, random.Random], str], copy: Path, draw: random.Random) -> str:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        signal.alarm(_SECONDS)
        try:
            outcome = look(copy, draw)
        except (ConfigError, DataError, StorageError) as error:
            outcome = "refused" if _is_one_line(str(error)) else f"WRONG: more than one line: {error!r}"
        except BaseException:
            outcome = f"WRONG: {' | '.join(traceback.format_exc().splitlines()[-9:])}"
        finally:
            signal.alarm(0)
    odd = [str(warning.message) for warning in told if not _is_one_line(str(warning.message))]
    return f"WRONG: a warning of more than one line: {odd}" if odd else outcome


def _is_one_line(message: str) -> bool:
    return bool(message) and message.isprintable()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# Checkpoints


def _make_checkpoints(folder: Path) -> None:
    run = tiny_run.TinyRun(folder)
    run.save(1)
    run.save(2)
    run.keeper.close()


def _look_at_checkpoints(folder: Path, draw: random.Random) -> str:
    older, newest = sorted((folder / "checkpoints").glob("step-*"))
    for step in [newest] if draw.random() < 0.6 else [newest, older]:
        if draw.random() < 0.5:
            forged.forge(step, draw)
        else:
            path = draw.choice(_files(step))
            damage(path, draw, draw.choice(_files(folder / "checkpoints")))
    if draw.random() < 0.05 and newest.is_dir():  # else it got another name
        (newest / draw.choice(["more", "state.data-00001-of-00002", ".hidden"])).write_bytes(b"x")
    return _restore(folder)


def _restore(folder: Path) -> str:
    run, expected = tiny_run.TinyRun(folder), tiny_run.TinyRun(folder)
    run.set(_LIVE)
    expected.set(_LIVE)
    try:
        found = run.keeper.restore()
    except (ConfigError, DataError):
        assert run.state()[:-1] == expected.state()[:-1], "a refused checkpoint touched the variables"
        raise
    assert found is not None, "it begins anew"
    # The tensors have a digest; a forged manifest may hold another place in the epoch that makes sense.
    expected.set(found.drawn)
    tensors = len(run.model.variables) + len(run.optimizer.variables)
    assert run.state()[:tensors] == expected.state()[:tensors]
    return "equal"


# IDX


def _make_idx(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 5, 4), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 3
    parts = {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels}
    parts |= {"t10k-images-idx3-ubyte": images[:9], "t10k-labels-idx1-ubyte": labels[:9]}
    for number, (name, array) in enumerate(parts.items()):
        content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        if number % 2:
            (folder / name).write_bytes(content)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))


def _look_at_idx(folder: Path, draw: random.Random) -> str:
    path = draw.choice(_files(folder))
    content = path.read_bytes()
    match draw.randrange(8):
        case 0:  # a header that promises something else
            header = bytearray(gzip.decompress(content) if path.suffix else content)
            header[draw.randrange(4 + 4 * header[3])] = draw.randrange(256)
            path.write_bytes(gzip.compress(header) if path.suffix else header)
        case 1:  # gzip's members one after another
            plain = gzip.decompress(content) if path.suffix else content
            cut = draw.randrange(len(plain))
            tail = draw.choice([b"", b"\0", b"\0" * 512, b"x", gzip.compress(b"more")])
            path.write_bytes(gzip.compress(plain[:cut]) + gzip.compress(plain[cut:]) + tail)
        case 2 if draw.random() < 0.3:  # a bomb
            plain = gzip.decompress(content) if path.suffix else content
            path.write_bytes(gzip.compress(plain + bytes(2**24), 6))
        case _:
            damage(path, draw, draw.choice(_files(folder)))
    array = read_idx(path)
    assert np.array_equal(array, _idx_says(path.read_bytes())), "it is not what the bytes say"
    return _folder_says(folder)


def _folder_says(folder: Path) -> str:
    splits = load_idx_folder(folder)
    said = {path.name.split("-idx")[0]: _idx_says(path.read_bytes()) for path in _files(folder)}
    for part, source in (("train", splits.train), ("t10k", splits.test)):
        assert source is not None
        for what, array in (("images", source.examples), ("labels", source.labels)):
            expected = said[f"{part}-{what}"]
            assert np.array_equal(array, expected.reshape(array.shape)), "it is not what the bytes say"
    return "equal"


def _idx_says(content: bytes) -> np.ndarray:
    """IDX read once more, in another way."""
    if content[:2] == b"\x1f\x8b":
        plain = b""
        while content.strip(b"\0"):  # zeros may follow
            member = zlib.decompressobj(31)
            plain += member.decompress(content)
            assert member.eof
            content = member.unused_data
        content = plain
    sizes = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(content[3])]
    return np.frombuffer(content[4 + 4 * len(sizes) :], np.uint8).reshape(sizes)


# Weights, the cache of decoded data


def _make_weights(folder: Path) -> None:
    runs.save_weights(folder, _WEIGHTS)


def _look_at_weights(folder: Path, draw: random.Random) -> str:
    path = folder / "weights.npz"
    match draw.randrange(10):
        case 0:  # an array that fills any memory, packed
            with path.open("wb") as file:
                np.savez_compressed(file, **dict[str, Any]({"00000000": np.zeros(2**22, "uint8")}))
        case 1:
            with path.open("wb") as file:
                np.savez(file, **dict[str, Any]({"00000000": np.array([{}, 1], dtype=object)}))
        case _:
            damage(path, draw)
    found = runs.load_weights(folder, runs.hash_weights(_WEIGHTS))
    assert all(np.array_equal(a, b) for a, b in zip(found, _WEIGHTS, strict=True))
    return "equal"


def _make_cache(folder: Path) -> None:
    cache.save_arrays(folder / "data", {"x": _WEIGHTS[0], "y": _WEIGHTS[1]})


def _look_at_cache(folder: Path, draw: random.Random) -> str:
    files = _files(folder)
    if draw.random() < 0.1:  # another spelling of the same
        index = next(path for path in files if path.suffix == ".json")
        index.write_text(json.dumps(json.loads(index.read_text()), indent=4))
    else:
        damage(draw.choice(files), draw, draw.choice(files))
    found = cache.load_arrays(folder / "data")
    if found is None:
        return "refused"
    assert set(found) <= {"x", "y"}
    assert all(np.array_equal(found[name], _WEIGHTS[number]) for number, name in enumerate("xy") if name in found)
    return "equal"


# Exports


def _make_export(folder: Path) -> None:
    version = folder / "1"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(random.Random(0).randbytes(500))
    (version / "variables" / "variables.index").write_bytes(random.Random(1).randbytes(300))
    told = {"batch_size": 64, "optimizer": {"class": "Adam", "rate": 0.1}, "metrics": {"loss": 0.5}, "seed": 1}
    tensors = [{"name": "images", "dtype": "uint8", "shape": [None, 28, 28, 1]}]
    facts = {
        "versions": dict.fromkeys(["tfmb", "tensorflow", "keras", "numpy", "python"], "1.0"),
        "model": {"name": "mlp", "parameters": 3},
        "weights": {"kind": "ema", "sha256": "0" * 64},
        "signatures": {"serving_default": {"inputs": tensors, "outputs": tensors}},
        "verification": {"rows": 4, "max_difference": 0.0},
        "comparison": None,
    }
    provenance.write(version, provenance.make(told, facts))
    checksums.write_sums(version)


def _look_at_export(folder: Path, draw: random.Random) -> str:
    version, before = folder / "1", provenance.check_export(folder / "1")
    record = version / provenance.PROVENANCE_FILE
    match draw.randrange(4):
        case 0:  # forged, with checksums that are right
            about = json.loads(record.read_text())
            forged.change(about, draw)
            record.write_text(forged.dumps(about))
            checksums.write_sums(version)
            found = provenance.check_export(version)
            assert json.dumps(found) == json.dumps(json.loads(record.read_text())), "it is not what the file says"
            return "equal"
        case 1:  # a list that names something else
            name = draw.choice(
                ["../x", "/etc/passwd", "..", ".", "\x1b[2J", "x" * 300, "variables", "./saved_model.pb"]
            )
            with (version / "SHA256SUMS").open("a") as file:
                file.write(f"{'0' * 64}  {name}\n")
        case 2 if draw.random() < 0.3:
            (version / draw.choice(["more", ".hidden", "variables/x", "a\nb", "saved_model.pbtxt"])).write_bytes(b"x")
        case _:
            damage(draw.choice(_files(version)), draw, draw.choice(_files(version)))
    assert provenance.check_export(version) == before
    return "equal"


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path, random.Random], str]]] = {
    "checkpoint": (_make_checkpoints, _look_at_checkpoints),
    "idx": (_make_idx, _look_at_idx),
    "weights": (_make_weights, _look_at_weights),
    "cache": (_make_cache, _look_at_cache),
    "export": (_make_export, _look_at_export),
    **fuzz_records.KINDS,
}
