"""Loops that train the same models on the same data: ours, Keras's, PyTorch's and JAX's.

A peer is a function from `Work` to a function that trains one epoch and returns when it is done. Each lives in a
process of its own (`benchmarks.child`), because the libraries' threads would get in each other's way.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["MODELS", "PEERS", "Work", "images", "peer"]

MODELS = ("cnn", "mlp", "resnet")
LEARNING_RATE, DROPOUT, MEAN, STD = 1e-3, 0.25, 0.1307, 0.3081  # Adam's rate; the CNN's dropout; of MNIST's pixels

# Peer -> (module, options of its `make`).
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "tfmb": ("tfmb_loop", {}),
    "tfmb, nothing": ("tfmb_loop", {"jit_compile": False}),
    "tfmb, update": ("tfmb_loop", {"jit_compile": "update"}),
    "tfmb, gradients": ("tfmb_loop", {"jit_compile": True}),
    "tfmb, step": ("tfmb_loop", {"jit_compile": "step"}),
    "tfmb, call": ("tfmb_loop", {"jit_compile": "call"}),
    "tfmb, deterministic": ("tfmb_loop", {"jit_compile": False, "deterministic": True}),
    "tfmb, bfloat16": ("tfmb_loop", {"precision": "bfloat16"}),
    "tfmb, 1 part": ("tfmb_loop", {"virtual_replicas": 1}),
    "tfmb, 4 parts": ("tfmb_loop", {"virtual_replicas": 4}),
    "tfmb, 2 replicas": ("tfmb_loop", {"devices": 2, "jit_compile": False}),
    "keras fit": ("keras_loop", {}),
    "keras fit, 50 steps": ("keras_loop", {"steps_per_execution": 50}),
    "keras fit, XLA": ("keras_loop", {"jit_compile": True}),
    "keras fit, XLA, 50 steps": ("keras_loop", {"jit_compile": True, "steps_per_execution": 50}),
    "torch": ("torch_loop", {}),
    "torch compile": ("torch_loop", {"compiled": True}),
    "jax": ("jax_loop", {}),
    "jax, scan of 50 steps": ("jax_loop", {"steps_a_call": 50}),
    "products": ("product", {}),
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is trained: one epoch is a chunk that is timed.

    Attributes:
        model: one of `MODELS`.
        batch_size: examples an update.
        updates: of an epoch.
        precision: `float32` or `bfloat16` (mixed: the weights are float32).
    """

    model: str
    batch_size: int
    updates: int
    precision: str = "float32"


def images(work: Work) -> tuple[Any, Any]:
    """Random uint8 images `[n, 28, 28, 1]` and int64 labels `[n]` for one epoch."""
    numbers = np.random.default_rng(0)
    examples = work.batch_size * work.updates
    return (
        numbers.integers(0, 256, (examples, 28, 28, 1)).astype(np.uint8),
        numbers.integers(0, 10, examples),
    )


def peer(name: str, work: Work) -> Callable[[], None]:
    """A function that trains one epoch of the work."""
    module, options = PEERS[name]
    made: Callable[[], None] = importlib.import_module(f"benchmarks.peers.{module}").make(work, **options)
    return made
