"""Layers by the kind of tensor that they take: each is drawn for a shape, and says which shape it leaves.

A shape has no axis of examples: `[4]` is a vector, `[5, 3]` a sequence, `[6, 6, 2]` an image.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from .terms import Term, call

__all__ = [
    "ACTIVATIONS",
    "Draw",
    "Drawn",
    "Shape",
    "attention",
    "bidirectional",
    "conv",
    "conv1",
    "dense",
    "depthwise",
    "discretization",
    "dot",
    "einsum",
    "flat",
    "frozen",
    "groups",
    "merge",
    "momentum",
    "multi_head",
    "nested",
    "normalization",
    "permute",
    "pool",
    "pooled",
    "rate",
    "recurrent",
    "rnn",
    "rows_of_image",
    "same",
    "seed",
    "sized",
    "spectral",
    "timed",
]

Shape = list[int]
# The layer, the shape that it leaves, and how it is called: on one tensor, on "twice" the same, on a "list" of the
# tensor and of what a layer of the same shape makes of it.
Drawn = tuple[Term, Shape, str]
Draw = Callable[[Random, Shape], Drawn]
ACTIVATIONS = ["tanh", "relu", "gelu", "selu", "silu", "elu", "softsign", "sigmoid", "softplus", "linear", "mish"]


def dense_layer(random: Random, units: int) -> Term:
    """A Dense layer with some of what it may have."""
    return call("layers.Dense", units, activation=random.choice(ACTIVATIONS), **_kernel(random))


def _kernel(random: Random, name: str = "kernel") -> dict[str, Term]:
    """Regularizers, constraints, initializers, or that it is frozen: mostly nothing."""
    given: dict[str, Term] = {}
    kind = random.random()
    if kind < 0.1:
        regularizer = random.choice(["L1", "L2", "L1L2", "OrthogonalRegularizer"])
        if regularizer == "OrthogonalRegularizer" and name != "kernel":
            regularizer = "L2"
        arguments = [] if regularizer == "OrthogonalRegularizer" else [0.01]
        given[f"{name}_regularizer"] = call(f"regularizers.{regularizer}", *arguments)
    elif kind < 0.2:
        given[f"{name}_constraint"] = random.choice(
            [
                call("constraints.MaxNorm", 0.5),
                call("constraints.UnitNorm", axis=0),
                call("constraints.NonNeg"),
                call("constraints.MinMaxNorm", 0.2, 0.8, 0.5),
            ]
        )
    elif kind < 0.28:
        given["activity_regularizer"] = call(f"regularizers.{random.choice(['L1', 'L2'])}", 0.01)
    elif kind < 0.34:
        given["trainable"] = False
    elif kind < 0.4:
        given["bias_regularizer"] = "l2"
    elif kind < 0.46:
        given[f"{name}_initializer"] = random.choice(["he_normal", "ones", "lecun_uniform", "orthogonal"])
    return given


def _plain(random: Random, name: str = "kernel") -> dict[str, Term]:
    """The same without orthogonal things, which want matrices."""
    given = _kernel(random, name)
    for key in [k for k, v in given.items() if "rthogonal" in str(v)]:
        del given[key]
    return given


def same(name: str, **given: Any) -> Draw:
    """A layer that leaves the shape; an argument that is a function is drawn."""

    def draw(random: Random, shape: Shape) -> Drawn:
        drawn = {key: value(random) if callable(value) else value for key, value in given.items()}
        return call(f"layers.{name}", **drawn), shape, "once"

    return draw


def rate(random: Random) -> float:
    return random.choice([0.2, 0.5])


def seed(random: Random) -> int | None:
    return random.choice([None, 1, 7])


def momentum(random: Random) -> float | None:
    return random.choice([None, 0.5])


def frozen(random: Random) -> bool | None:
    return random.choice([None, None, False])


def dense(random: Random, shape: Shape) -> Drawn:
    units = random.choice([2, 3, 4])
    return dense_layer(random, units), [*shape[:-1], units], "once"


def einsum(random: Random, shape: Shape) -> Drawn:
    equation = "ab,bc->ac" if len(shape) == 1 else "abc,cd->abd"
    output = [3] if len(shape) == 1 else [shape[0], 3]
    return call("layers.EinsumDense", equation, output, bias_axes=equation[-1]), output, "once"


def groups(random: Random, shape: Shape) -> Drawn:
    groups = random.choice([-1, 1, *([2] if shape[-1] % 2 == 0 else [])])
    return call("layers.GroupNormalization", groups), shape, "once"


def normalization(random: Random, shape: Shape) -> Drawn:
    if random.random() < 0.5:
        return call("layers.Normalization", mean=0.3, variance=2.0), shape, "once"
    return call("layers.Normalization", mean=0.1, variance=0.5, invert=True), shape, "once"


def merge(name: str) -> Draw:
    def draw(random: Random, shape: Shape) -> Drawn:
        del random
        left = [*shape[:-1], 2 * shape[-1]] if name == "Concatenate" else shape
        return call(f"layers.{name}"), left, "list"

    return draw


def dot(random: Random, shape: Shape) -> Drawn:
    return call("layers.Dot", axes=1, normalize=random.random() < 0.5), [1], "list"


def spectral(random: Random, shape: Shape) -> Drawn:
    return call("layers.SpectralNormalization", call("layers.Dense", 3)), [*shape[:-1], 3], "once"


def nested(random: Random, shape: Shape) -> Drawn:
    inside = [dense_layer(random, 3), call("layers.Dropout", 0.3) if random.random() < 0.5 else dense_layer(random, 4)]
    inside.append(dense_layer(random, 3))
    return call("Sequential", inside), [*shape[:-1], 3], "once"


def discretization(random: Random, shape: Shape) -> Drawn:
    del random
    return call("layers.Discretization", [-0.5, 0.0, 0.5], output_mode="multi_hot"), [4], "once"


def recurrent(random: Random, sequences: bool) -> Term:
    kind = random.choice(["LSTM", "GRU", "SimpleRNN"])
    given: dict[str, Any] = {"return_sequences": True} if sequences else {}
    given |= _kernel(random)
    if random.random() < 0.15:
        given["recurrent_dropout"] = 0.2
    if random.random() < 0.15:
        given["dropout"] = 0.2
    if random.random() < 0.2:
        given["unroll"] = True
    if random.random() < 0.2 and "activity_regularizer" not in given:
        given["go_backwards"] = True
    if kind == "GRU" and random.random() < 0.3:
        given["reset_after"] = False
    return call(f"layers.{kind}", 3, **given)


def rnn(random: Random, shape: Shape) -> Drawn:
    return recurrent(random, True), [shape[0], 3], "once"


def bidirectional(sequences: bool) -> Draw:
    def draw(random: Random, shape: Shape) -> Drawn:
        inside = recurrent(random, sequences)
        inside["with"].pop("go_backwards", None)
        mode = random.choice(["concat", "sum", "ave", "mul"])
        units = 6 if mode == "concat" else 3
        layer = call("layers.Bidirectional", inside, merge_mode=mode)
        return layer, [shape[0], units] if sequences else [units], "once"

    return draw


def conv1(random: Random, shape: Shape) -> Drawn:
    padding = random.choice(["same", "causal"])
    layer = call("layers.Conv1D", 3, 2, padding=padding, activation=random.choice(ACTIVATIONS), **_plain(random))
    return layer, [shape[0], 3], "once"


def conv(name: str, filters: int = 3) -> Draw:
    def draw(random: Random, shape: Shape) -> Drawn:
        given = _plain(random) if name in ("Conv2D", "Conv2DTranspose", "Conv1DTranspose") else {}
        layer = call(f"layers.{name}", filters, 3, padding="same", activation=random.choice(ACTIVATIONS), **given)
        return layer, [*shape[:-1], filters], "once"

    return draw


def depthwise(name: str) -> Draw:
    def draw(random: Random, shape: Shape) -> Drawn:
        given = {"depth_multiplier": random.choice([1, 2]), **_plain(random, "depthwise")}
        layer = call(f"layers.{name}", 3, padding="same", **given)
        return layer, [*shape[:-1], shape[-1] * given["depth_multiplier"]], "once"

    return draw


def pool(name: str) -> Draw:
    def draw(random: Random, shape: Shape) -> Drawn:
        del random
        return call(f"layers.{name}", 2, padding="same"), [*(-(-n // 2) for n in shape[:-1]), shape[-1]], "once"

    return draw


def sized(name: str, change: Callable[[int], int], *arguments: Any) -> Draw:
    def draw(random: Random, shape: Shape) -> Drawn:
        left = [*map(change, shape[:-1]), shape[-1]]
        if min(left) < 2:
            return dense_layer(random, 3), [*shape[:-1], 3], "once"
        return call(f"layers.{name}", *arguments), left, "once"

    return draw


def multi_head(random: Random, shape: Shape) -> Drawn:
    given = {"dropout": 0.2} if random.random() < 0.2 else {}
    return call("layers.MultiHeadAttention", 2, 2, **given, **_plain(random)), shape, "twice"


def attention(name: str) -> Draw:
    def draw(random: Random, shape: Shape) -> Drawn:
        given: dict[str, Any] = {"use_scale": random.random() < 0.5}
        if random.random() < 0.2:
            given |= {"dropout": 0.2, "seed": 3}
        return call(f"layers.{name}", **given), shape, "list"

    return draw


def permute(random: Random, shape: Shape) -> Drawn:
    del random
    return call("layers.Permute", [2, 1]), [shape[1], shape[0]], "once"


def timed(random: Random, shape: Shape) -> Drawn:
    return call("layers.TimeDistributed", dense_layer(random, 3)), [shape[0], 3], "once"


def rows_of_image(random: Random, shape: Shape) -> Drawn:
    del random
    return call("layers.Reshape", [shape[0], shape[1] * shape[2]]), [shape[0], shape[1] * shape[2]], "once"


def flat(random: Random, shape: Shape) -> Drawn:
    del random
    size = 1
    for each in shape:
        size *= each
    return call("layers.Flatten"), [size], "once"


def pooled(name: str) -> Draw:
    return lambda random, shape: (call(f"layers.{name}"), [shape[-1]], "once")
