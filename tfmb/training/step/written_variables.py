"""The variables that a traced function writes, whoever owns them: metrics' totals, layers' state, seeds, counters."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.types import Variable

__all__ = ["StateVariable", "captured_by", "graph_of", "operations_of", "written_here", "written_in"]

# Operations that only look at a variable; what is not known here is taken to write.
_READ = frozenset(["ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"])
# What TensorFlow notes on an operation that calls functions: the inputs that none of them writes.
_ONLY_READ = "_read_only_resource_inputs"


class StateVariable:
    """A variable known by its handle alone, as a traced function captured it.

    Args:
        handle: a resource tensor.

    Attributes:
        dtype: of its value.
        shape: of its value.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        about = handle._handle_data.shape_and_type[0]
        self.dtype = tf.dtypes.as_dtype(about.dtype)
        self.shape = tf.TensorShape(about.shape)

    def read(self) -> Any:
        """Returns its value, as a tensor."""
        value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=self.dtype)
        return tf.ensure_shape(value, self.shape)

    def numpy(self) -> np.ndarray:
        """Returns its value, on the host."""
        value: np.ndarray = self.read().numpy()
        return value

    def assign(self, value: Any) -> None:
        """Gives it a value of its dtype."""
        value = tf.convert_to_tensor(value, self.dtype)
        tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)

    def inside(self, graph: Any) -> int:
        """The id of the tensor by which a graph under construction knows its resource."""
        return id(graph.capture(self._handle))

    def is_of(self, variable: Variable) -> bool:
        """Whether it is this `tf.Variable`."""
        return getattr(variable, "handle", None) is self._handle

    def is_same(self, other: "StateVariable") -> bool:
        """Whether both are the same variable."""
        return other._handle is self._handle


def graph_of(function: Callable[..., Any], *specs: Any) -> Any:
    """The graph of a function of tensors of some specs, which cannot be run: it costs less than a `tf.function`."""
    if not all(spec is None or isinstance(spec, tf.TensorSpec) for spec in keras.tree.flatten(specs)):
        return tf.function(function, autograph=False).get_concrete_function(*specs).graph
    graph = tf.__internal__.FuncGraph(getattr(function, "__name__", "function"))
    with graph.as_default():
        function(
            *keras.tree.map_structure(
                lambda spec: tf.compat.v1.placeholder(spec.dtype, spec.shape), specs, none_is_leaf=False
            )
        )
    return graph


def written_in(graph: Any) -> list[StateVariable]:
    """The variables that a function's graph or what it calls may write, in the order of their captures."""
    captured = {id(inside): outside for outside, inside in graph.captures if outside.dtype == tf.resource}
    written = _written_by(graph.get_operations())
    return [StateVariable(outside) for inside, outside in captured.items() if inside in written and _holds(outside)]


def captured_by(graph: Any) -> list[StateVariable]:
    """The variables that a function's graph reads or writes, in the order of their captures."""
    return [StateVariable(outside) for outside, _ in graph.captures if outside.dtype == tf.resource and _holds(outside)]


def operations_of(graph: Any) -> set[str]:
    """The types of all operations in a function's graph and in the functions that it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def written_here(start: int, variables: list[StateVariable]) -> list[int]:
    """The places of the variables that the graph under construction writes by its operations from `start` on."""
    graph = tf.compat.v1.get_default_graph()
    written = _written_by(graph.get_operations()[start:])
    return [number for number, variable in enumerate(variables) if variable.inside(graph) in written]


def _written_by(operations: list[Any]) -> set[int]:
    """The ids of the resource tensors that operations may write."""
    written: set[int] = set()
    for operation in operations:
        if operation.type in _READ:
            continue
        only_read = _only_read(operation)
        for number, tensor in enumerate(operation.inputs):
            if tensor.dtype == tf.resource and number not in only_read:
                written.add(id(tensor))
    return written


def _only_read(operation: Any) -> list[int]:
    try:
        return list(operation.get_attr(_ONLY_READ))
    except ValueError:
        return []


def _holds(handle: Any) -> bool:
    """Whether the resource is a variable, and no table or iterator."""
    about = getattr(handle, "_handle_data", None)
    return about is not None and about.is_set and len(about.shape_and_type) == 1
