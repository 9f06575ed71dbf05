"""Checks a SavedModel's operations before it is loaded: none may run Python, or touch files or the network.

A SavedModel is a program: TensorFlow runs all operations in it. These rules allow only those that compute.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfmb.errors import DataError
from tfmb.storage.checksums import read_plain

__all__ = ["check_operations"]

_MOST_BYTES = 2**31 - 1  # of any protocol buffer
# The loader would take these in place of saved_model.pb, or look at them too.
_OTHER_FORMS = ("saved_model.cpb", "saved_model.pbtxt")
# Operations that are not marked as stateful and do more than compute.
_NEVER = re.compile(r"\w*(Dataset|Reader|TextFile|PyFunc|CustomCall|XlaLaunch|TPU|Tpu|Snapshot)\w*")
_NEVER_NAMED = frozenset(["ReadFile", "MatchingFiles", "ImmutableConst"])
# Stateful operations that only compute, call, draw numbers or hold values; every other one is refused.
_STATEFUL = re.compile(
    r"VarHandleOp|VarIsInitializedOp|ReadVariableOp|Assign\w*VariableOp|ResourceGather(Nd)?|ResourceScatter\w+|"
    r"VariableShape|DestroyResourceOp|DisableCopyOnRead|StatefulPartitionedCall|If|While|Case|Assert|CheckNumerics\w*|"
    r"Random(Uniform|UniformInt|StandardNormal|Shuffle|Gamma|Poisson|PoissonV2)|(Parameterized)?TruncatedNormal|"
    r"Stateful(Uniform\w*|StandardNormal\w*|TruncatedNormal|RandomBinomial)|Rng(ReadAndSkip|Skip)|Multinomial|"
    r"StatelessRandomGetAlg|DeviceIndex|Empty|GuaranteeConst|IsTensorFloat32Enabled|CudnnRNN\w*|TensorArray\w+|"
    r"Stack\w*|(Mutable|MutableDense)?HashTable(V2)?|InitializeTable(V2)?|LookupTable(Find|Size|Import|Insert)V2"
)
# With these every SavedModel saves and restores its variables, in functions that no request calls.
_SAVER = frozenset(["SaveV2", "RestoreV2", "MergeV2Checkpoints"])


def check_operations(folder: Path) -> None:
    """Raises where the SavedModel in a folder holds an operation that does more than compute.

    Raises:
        DataError: it does, it is of another form, or it cannot be read.
    """
    for name in _OTHER_FORMS:
        if (folder / name).exists() or (folder / name).is_symlink():
            raise DataError(f"{folder} holds {name}, which tfmb does not read: export the model as saved_model.pb")
    graph = _read(folder / "saved_model.pb")
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    served = _reached(graph.object_graph_def.concrete_functions, functions)
    for name, function in functions.items():
        _check(function.node_def, functions, frozenset() if name in served else _SAVER, folder)
    _check(graph.graph_def.node, functions, _SAVER, folder)


def _read(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    found = SavedModel()
    try:
        found.ParseFromString(read_plain(path, _MOST_BYTES))
    except DecodeError as error:
        raise DataError(f"{path} cannot be loaded ({error}): the export is damaged") from error
    if len(found.meta_graphs) != 1 or not found.meta_graphs[0].HasField("object_graph_def"):
        raise DataError(f"{path} cannot be loaded (it is no SavedModel of TensorFlow 2): export the model again")
    return found.meta_graphs[0]


def _reached(names: Any, functions: dict[str, Any]) -> set[str]:
    """Returns these functions, and all that they call."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in functions and name not in reached:
            reached.add(name)
            waiting.extend(called for node in functions[name].node_def for called in _called(node))
    return reached


def _called(node: Any) -> Iterator[str]:
    yield node.op  # which may be a function's name
    for attribute in node.attr.values():
        yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def _check(nodes: Any, functions: dict[str, Any], allowed: frozenset[str], folder: Path) -> None:
    from tensorflow.python.framework import op_def_registry

    for node in nodes:
        if node.op in functions or node.op in allowed:
            continue
        about = op_def_registry.get(node.op)
        refused = about is None or node.op in _NEVER_NAMED or _NEVER.fullmatch(node.op)
        if refused or (about.is_stateful and not _STATEFUL.fullmatch(node.op)):
            raise DataError(
                f"{folder}: its operation {node.op!r} may do more than compute (files, network, Python code): "
                "tfmb does not run it"
            )
