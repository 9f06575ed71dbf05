"""The layers of a program: from inputs of several kinds over branches to heads, one for each output."""

from random import Random
from typing import Any

from . import layers
from .drawn_layers import Draw
from .objectives import LOSSES, draw_loss
from .terms import Term, call

__all__ = ["INPUTS", "draw_graph"]

# Kinds of inputs: the shape of an example, and its data as code for `n` examples of shape `s`.
INPUTS: dict[str, tuple[list[int], str]] = {
    "vector": ([4], "random.normal(size=(n, *s))"),
    "sequence": ([5, 3], "random.normal(size=(n, *s))"),
    "image": ([6, 6, 2], "random.uniform(size=(n, *s))"),
    "words": ([5], "np.sort(random.integers(0, 6, (n, *s)), 1)[:, ::-1] + np.eye(1, s[0], dtype=int)"),
    "numbers": ([3], "random.integers(0, 6, (n, *s))"),
    "strings": ([3], "random.choice(['red', 'green', 'blue', 'grey'], (n, *s))"),
}
_SELDOM = (
    "AveragePooling1D",
    "ActivityRegularization",
    "Masking",
    "ZeroPadding1D",
    "MaxPooling1D",
    "Cropping1D",
    "Cropping2D",
    "UpSampling1D",
    "UpSampling2D",
    "Permute",
    "PReLU",
    "SpectralNormalization",
)
_COLOURS = ["red", "green", "blue"]


class _Graph:
    """Nodes one after another; each has a name, a layer and the nodes that it takes."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.nodes: list[dict[str, Any]] = []

    def add(self, layer: Term, *of: str, how: str = "once") -> str:
        """A new node; returns its name."""
        name = f"h{len(self.nodes) + 1}"
        self.nodes.append({"name": name, "layer": layer, "of": list(of), "how": how})
        return name

    def draw(self, table: dict[str, Draw], node: str, shape: list[int]) -> tuple[str, list[int]]:
        """A layer of a table on a node; returns the new node and its shape."""
        # Those that find a place more seldom are drawn more often.
        (name,) = self.random.choices(list(table), [2 if name in _SELDOM else 1 for name in table])
        layer, left, how = table[name](self.random, shape)
        if how == "twice":
            return self.add(layer, node, node, how="several"), left
        if how == "list":
            beside = self.add(call("layers.Activation", self.random.choice(["tanh", "sigmoid"])), node)
            return self.add(layer, node, beside, how="list"), left
        if layer["call"] == "layers.Dense" and left == shape and self.random.random() < 0.5:
            shared = self.add(layer, node)  # which is called again
            return self.add({"shared": shared}, shared), left
        return self.add(layer, node), left

    def draw_several(self, table: dict[str, Draw], count: int, node: str, shape: list[int]) -> tuple[str, list[int]]:
        for _ in range(count):
            node, shape = self.draw(table, node, shape)
        return node, shape


def draw_graph(random: Random) -> dict[str, Any]:
    """Inputs, nodes, and outputs with their losses."""
    graph = _Graph(random)
    inputs, ends = [], []
    names = random.sample(list(LOSSES), random.choice([1, 1, 1, 2, 2, 3]))
    stepwise = "CTC" in names or random.random() < 0.12
    kinds = random.choices(["vector", "sequence", "image", "words"], [2, 4, 6, 4], k=random.choice([1, 1, 1, 2, 2]))
    if random.random() < 0.3:
        kinds.append(random.choice(["numbers", "strings"]))
    for number, kind in enumerate(kinds):
        if stepwise and number == 0:
            kind = "sequence" if "CTC" in names else random.choice(["sequence", "words"])  # CTC takes no mask
        name = "abc"[number]
        inputs.append({"name": name, "kind": kind})
        ends.append(_branch(graph, kind, name, keep=stepwise and number == 0))
    steps = ends.pop(0) if stepwise else None
    if not ends:
        assert steps is not None
        ends = [graph.draw(layers.REDUCE_SEQUENCE, *steps)]
    node, shape = ends[0]
    for other, width in ends[1:]:
        node, shape = graph.add(call("layers.Concatenate"), node, other, how="list"), [shape[0] + width[0]]
    node, shape = graph.draw_several(layers.VECTOR, random.choice([2, 2, 3]), node, shape)
    outputs = []
    for number, loss in enumerate(names):
        at_steps = steps is not None and (loss == "CTC" or (number == 0 and loss not in ("Circle", "CTC", "Tversky")))
        outputs.append(_head(graph, loss, f"y{number + 1}", steps if at_steps and steps else (node, shape), at_steps))
    return {"inputs": inputs, "nodes": graph.nodes, "outputs": outputs}


def _branch(graph: _Graph, kind: str, node: str, keep: bool) -> tuple[str, list[int]]:
    """From an input to a vector, or to a sequence that is kept as one."""
    random, shape = graph.random, INPUTS[kind][0]
    if kind == "vector":
        return graph.draw_several(layers.VECTOR, random.choice([0, 1]), node, shape)
    if kind in ("numbers", "strings"):
        counts = graph.add(_lookup(random, kind), node)  # which are whole numbers
        return graph.add(call("layers.Dense", 3), counts), [3]
    if kind == "image":
        node, shape = graph.draw_several(layers.IMAGE, random.choice([2, 3, 3]), node, shape)
        reduce = random.choice(list(layers.REDUCE_IMAGE))
        node, shape = graph.draw({reduce: layers.REDUCE_IMAGE[reduce]}, node, shape)
        return graph.draw(layers.REDUCE_SEQUENCE, node, shape) if len(shape) == 2 else (node, shape)
    if kind == "words":
        given: dict[str, Any] = {"mask_zero": random.random() < 0.6}
        if random.random() < 0.2:
            given["embeddings_regularizer"] = "l2"
        if random.random() < 0.15:
            given["embeddings_constraint"] = "unit_norm"
        if random.random() < 0.1:
            given["lora_rank"] = 1
        node, shape = graph.add(call("layers.Embedding", 8, 3, **given), node), [shape[0], 3]
    if keep:
        # What a sequence's targets fit has the length that it began with.
        same = [n for n in layers.SEQUENCE if n not in _NOT_KEPT]
        return graph.draw_several({n: layers.SEQUENCE[n] for n in same}, random.choice([1, 2]), node, shape)
    node, shape = graph.draw_several(layers.SEQUENCE, random.choice([2, 2, 3]), node, shape)
    return graph.draw(layers.REDUCE_SEQUENCE, node, shape)


_NOT_KEPT = ["Masking", "MaxPooling1D", "AveragePooling1D", "ZeroPadding1D", "Cropping1D", "UpSampling1D", "Permute"]


def _lookup(random: Random, kind: str) -> Term:
    """A layer that makes eight counts of numbers or strings."""
    mode = random.choice(["multi_hot", "count"])
    if kind == "numbers":
        if random.random() < 0.5:
            return call("layers.CategoryEncoding", 8, mode)
        return call("layers.IntegerLookup", vocabulary=[0, 1, 2, 3, 4, 5, 9], output_mode=mode)
    if random.random() < 0.5:
        return call("layers.Hashing", 8, output_mode=mode)
    return call("layers.StringLookup", vocabulary=_COLOURS, num_oov_indices=5, output_mode=mode)


def _head(graph: _Graph, name: str, output: str, at: tuple[str, list[int]], at_steps: bool) -> dict[str, Any]:
    random, (node, shape) = graph.random, at
    loss, target, activation = draw_loss(random, name)
    units = 4 if name == "CTC" else 3 if target in ("shares", "one hot", "classes") else random.choice([1, 2, 3])
    layer = call("layers.Dense", units, activation=activation, name=output)
    if name == "Circle":
        node = graph.add(call("layers.Dense", units), node)
        layer = call("layers.UnitNormalization", name=output)
    return {
        "name": output,
        "of": graph.add(layer, node),
        "loss": loss,
        "target": target,
        "shape": [*(shape[:1] if at_steps else []), units],
    }
