"""A JAX loop with optax: one compiled step, or a scan over many, the images on the device."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks.peers import DROPOUT, LEARNING_RATE, MEAN, STD, Work, images

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _convolve(x: Any, kernel: Any, stride: int = 1) -> Any:
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=_LAYOUT)


def _max_pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _mean_pool(x: Any) -> Any:
    ones = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME") / ones


def _norm(x: Any, scale: Any) -> Any:
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * lax.rsqrt(variance + 1e-3) * scale[0] + scale[1]


def shapes(model: str) -> dict[str, tuple[int, ...]]:
    """The parameters' shapes by name."""
    if model == "mlp":
        return {"w1": (784, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
    if model == "cnn":
        first = {"k1": (3, 3, 1, 32), "c1": (32,), "k2": (3, 3, 32, 64), "c2": (64,)}
        return {**first, "w1": (3136, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
    found: dict[str, tuple[int, ...]] = {"stem": (3, 3, 1, 16), "stem_norm": (2, 16)}
    for stage, (before, channels) in enumerate(((16, 16), (16, 32), (32, 64))):
        found |= {f"{stage}a": (3, 3, before, channels), f"{stage}b": (3, 3, channels, channels)}
        found |= {f"{stage}a_norm": (2, channels), f"{stage}b_norm": (2, channels)}
        if stage:
            found |= {f"{stage}s": (1, 1, before, channels), f"{stage}s_norm": (2, channels)}
    return {**found, "w2": (64, 10), "b2": (10,)}


def logits(model: str, p: dict[str, Any], x: Any, key: Any) -> Any:
    """The model: images `[batch, 28, 28, 1]`, normalised -> logits."""
    if model == "mlp":
        return jax.nn.relu(x.reshape(len(x), -1) @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    if model == "cnn":
        x = _max_pool(jax.nn.relu(_convolve(x, p["k1"]) + p["c1"]))
        x = _max_pool(jax.nn.relu(_convolve(x, p["k2"]) + p["c2"]))
        x = jax.nn.relu(x.reshape(len(x), -1) @ p["w1"] + p["b1"])
        keep = jax.random.bernoulli(key, 1.0 - DROPOUT, x.shape)
        return jnp.where(keep, x / (1.0 - DROPOUT), 0.0) @ p["w2"] + p["b2"]
    x = jax.nn.relu(_norm(_convolve(x, p["stem"]), p["stem_norm"]))
    for stage in range(3):
        stride = 2 if stage else 1
        y = jax.nn.relu(_norm(_convolve(x, p[f"{stage}a"], stride), p[f"{stage}a_norm"]))
        y = _norm(_convolve(y, p[f"{stage}b"]), p[f"{stage}b_norm"])
        x = jax.nn.relu(y + (_norm(_convolve(_mean_pool(x), p[f"{stage}s"]), p[f"{stage}s_norm"]) if stage else x))
    return x.mean((1, 2)) @ p["w2"] + p["b2"]


def make(work: Work, steps_a_call: int = 1) -> Callable[[], None]:
    """See `benchmarks.peers`."""
    pixels, labels = images(work)
    data = (jnp.asarray(pixels), jnp.asarray(labels))
    numbers = np.random.default_rng(0)
    parameters = {
        name: jnp.asarray(numbers.normal(size=shape) * np.sqrt(2.0 / max(math.prod(shape[:-1]), 1)), jnp.float32)
        for name, shape in shapes(work.model).items()
    }
    optimizer = optax.adam(LEARNING_RATE)
    half = jnp.bfloat16 if work.precision == "bfloat16" else jnp.float32

    def loss_of(parameters: Any, x: Any, y: Any, key: Any) -> Any:
        x = ((x.astype(jnp.float32) / 255.0 - MEAN) / STD).astype(half)
        found = logits(work.model, jax.tree.map(lambda p: p.astype(half), parameters), x, key)
        return optax.softmax_cross_entropy_with_integer_labels(found.astype(jnp.float32), y).mean()

    def step(state: Any, rows: Any) -> Any:
        parameters, slots, key = state
        key, own = jax.random.split(key)
        gradients = jax.grad(loss_of)(parameters, data[0][rows], data[1][rows], own)
        updates, slots = optimizer.update(gradients, slots)
        return (optax.apply_updates(parameters, updates), slots, key), None

    def steps(state: Any, rows: Any) -> Any:
        return step(state, rows)[0] if steps_a_call == 1 else lax.scan(step, state, rows)[0]

    compiled = jax.jit(steps, donate_argnums=0)
    state = [(parameters, optimizer.init(parameters), jax.random.key(0))]

    def epoch() -> None:
        order = numbers.permutation(len(labels)).astype(np.int32).reshape(-1, work.batch_size)
        for start in range(0, len(order), steps_a_call):
            rows = order[start] if steps_a_call == 1 else order[start : start + steps_a_call]
            state[0] = compiled(state[0], rows)
        jax.block_until_ready(state[0])

    return epoch
