"""Accuracy of whole runs: every rule on real MNIST, and digits where there is nothing else. Minutes long."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SEEDS = (0, 1, 2)
# rule -> options, and the least accuracy of a single seed and of the mean
RULES: dict[str, tuple[list[str], float, float]] = {
    "adam": (["--optimizer", "adam", "--learning-rate", "0.001"], 0.988, 0.990),
    "momentum": (["--optimizer", "momentum,momentum=0.9", "--learning-rate", "0.05"], 0.985, 0.985),
    "rmsprop": (["--optimizer", "rmsprop", "--learning-rate", "0.001"], 0.985, 0.985),
}
# What the runs of this session came to, for the means; a test asks for what it needs.
_accuracies: dict[tuple[str, int], float] = {}


def train(folder: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tfmb", "train", "--json", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def accuracy(rule: str, seed: int, folder: Path, mirror: Path) -> float:
    if (rule, seed) not in _accuracies:
        options, _, _ = RULES[rule]
        data = ["--dataset", "mnist", "--mirror", str(mirror), "--epochs", "5", "--seed", str(seed)]
        _accuracies[rule, seed] = train(folder, *data, *options)["test_accuracy"]
    return _accuracies[rule, seed]


@pytest.mark.mnist
@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed_{seed}")
@pytest.mark.parametrize("rule", RULES)
def test_a_seed_on_mnist(rule: str, seed: int, tmp_path: Path, mnist_mirror: Path) -> None:
    _, least, _ = RULES[rule]
    assert accuracy(rule, seed, tmp_path, mnist_mirror) >= least


@pytest.mark.mnist
@pytest.mark.parametrize("rule", RULES)
def test_the_mean_on_mnist(rule: str, tmp_path: Path, mnist_mirror: Path) -> None:
    _, _, least = RULES[rule]
    assert sum(accuracy(rule, seed, tmp_path, mnist_mirror) for seed in SEEDS) / len(SEEDS) >= least


@pytest.mark.mnist
def test_bfloat16_on_mnist(tmp_path: Path, mnist_mirror: Path) -> None:
    data = ["--dataset", "mnist", "--mirror", str(mnist_mirror), "--epochs", "5", "--seed", "0"]
    assert train(tmp_path, *data, "--precision", "mixed_bfloat16")["test_accuracy"] >= 0.988


def test_digits_with_no_network_and_no_cache(tmp_path: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    caches = {"TFMB_CACHE": str(tmp_path / "c"), "TFDS_DATA_DIR": str(tmp_path / "t")}
    results = []
    for seed in SEEDS:
        started = time.perf_counter()
        results.append(train(tmp_path, "--seed", str(seed), **nowhere, **caches))
        assert time.perf_counter() - started < 60
    assert {result["dataset"] for result in results} == {"digits"}
    assert sum(result["test_accuracy"] for result in results) / len(results) >= 0.97
