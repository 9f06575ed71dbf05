"""Every private name of a library that we use is listed, and is there in the installed version."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest
from house import private_names as names

from tfmb.backend import keras, tf

ROOT = Path(__file__).parents[1]
# Attributes of Python's own objects, and ours on theirs.
PYTHONS = {"_exit", "_fields", "_max_workers", "_mp_context"}
OURS = {"_tfmb_compiled", "_tfmb_copy", "_tfmb_steps"}
LISTED = {
    *(*names.KERAS_MODEL, *names.KERAS_OPTIMIZER, *names.KERAS_OBJECTS, *names.TENSORFLOW, *names.KERAS_TUNER),
}


def modules() -> Iterator[ast.Module]:
    for top in ("tfmb", "tuning"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if not path.is_relative_to(ROOT / "tfmb" / "tuning"):
                yield ast.parse(path.read_text())


def defined(tree: ast.Module) -> Iterator[str]:
    """The names that our own classes give their attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def used(tree: ast.Module) -> Iterator[str]:
    """The private attributes that are asked for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            names = (each.value for each in node.args[1:2] if isinstance(each, ast.Constant))
            yield from (name for name in names if isinstance(name, str))


def test_the_list_is_complete_and_no_longer_than_the_source() -> None:
    trees = list(modules())
    private = {name for tree in trees for name in used(tree) if name[:1] == "_" and name[:2] != "__"}
    own = {name for tree in trees for name in defined(tree)}
    assert private - own - LISTED - PYTHONS - OURS == set()
    in_texts = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {name for name in LISTED if name not in private and name not in in_texts} == set()


def test_modules_that_are_not_public_are_listed() -> None:
    found = {
        node.module
        for tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and (".src" in node.module or ".python." in node.module)
    }
    assert found <= set(names.MODULES)
    for module, name in names.MODULES.items():
        assert hasattr(importlib.import_module(module), name), f"{module}.{name} is gone"


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dropout(0.1), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    return model


@pytest.mark.parametrize("name", names.KERAS_MODEL)
def test_of_a_model(name: str, model: Any) -> None:
    if name == "_initial_epoch":  # BackupAndRestore makes it
        assert name in Path(keras.src.callbacks.backup_and_restore.__file__).read_text()
    else:
        assert hasattr(model, name)


@pytest.mark.parametrize("name", names.KERAS_OPTIMIZER)
def test_of_an_optimizer(name: str, model: Any) -> None:
    optimizer = keras.optimizers.Adam(use_ema=True, weight_decay=0.1)
    optimizer.exclude_from_weight_decay([model.trainable_variables[0]], ["bias"])
    optimizer.build(model.trainable_variables)
    if name == "_distribution_strategy":
        with tf.distribute.OneDeviceStrategy("cpu:0").scope():
            optimizer = keras.optimizers.Adam()
    assert hasattr(optimizer, name)


def test_of_other_objects_of_keras(model: Any) -> None:
    def built(optimizer: Any) -> Any:
        optimizer.build(model.trainable_variables)
        return optimizer

    masked = keras.layers.Masking()(np.ones((2, 3, 1), np.float32))
    owners: dict[str, Any] = {
        "_average_gradients": built(keras.optimizers.RMSprop(centered=True)),
        "_flat_losses": model._compile_loss,
        "_flat_metrics": model._compile_metrics,
        "_flat_weighted_metrics": model._compile_metrics,
        "_fn": keras.metrics.MeanSquaredError(),
        "_fn_kwargs": keras.metrics.MeanSquaredError(),
        "_functional": model,
        "_inputs_struct": model._functional,
        "_is_default": keras.callbacks.Callback().on_train_batch_end,
        "_keras_history": model.outputs[0],
        "_keras_logits": model(np.ones((1, 3), np.float32)),
        "_keras_mask": masked,
        "_outputs_struct": model._functional,
        "_seed_generators": model.layers[0],
        "_velocity_hats": built(keras.optimizers.Adam(amsgrad=True)),
    }
    assert set(owners) == set(names.KERAS_OBJECTS)
    assert [name for name, owner in owners.items() if not hasattr(owner, name)] == []


def test_of_tensorflow() -> None:
    variable, strategy = tf.Variable(1.0), tf.distribute.MirroredStrategy(["cpu:0"])
    with strategy.scope():
        made = tf.Variable(1.0)
    owners: dict[str, Any] = {
        "_cross_device_ops": strategy.extended,
        "_distribute_strategy": made,
        "_distribution_strategy_stack": tf.compat.v1.get_default_graph(),
        "_handle_data": variable.handle,
        "_unique_id": variable,
        "_variable_creator_stack": tf.compat.v1.get_default_graph(),
    }
    assert set(owners) == set(names.TENSORFLOW)
    assert [name for name, owner in owners.items() if not hasattr(owner, name)] == []


def test_of_keras_tuner() -> None:
    goal = keras_tuner.Objective("loss", "min")
    bayesian = keras_tuner.oracles.BayesianOptimizationOracle(goal, 3)
    owners: dict[str, Any] = {
        "_nonfixed_space": bayesian,
        "_populate_next": keras_tuner.oracles.GridSearchOracle(goal, 3),
        "_record_values": bayesian,
        "_retry_queue": bayesian,
        "_set_project_dir": bayesian,
    }
    assert set(owners) == set(names.KERAS_TUNER)
    assert [name for name, owner in owners.items() if not hasattr(owner, name)] == []
