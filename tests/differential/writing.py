"""A program as the Keras code that is run: `fit` in it is `keras.Model.fit` or `tfmb.fit`, `note` keeps a value."""

import re
from collections.abc import Sequence
from typing import Any

from .graphs import INPUTS
from .objectives import TARGETS
from .terms import code, expression
from .trainings import BATCHED

__all__ = ["write"]

_HEAD = """\
import keras
import numpy as np
import tensorflow as tf

keras.config.set_floatx({floatx!r})
keras.config.set_dtype_policy({policy!r})
keras.utils.set_random_seed({seed})
random = np.random.default_rng({seed})
"""
_SUBCLASS = """\
class Wrapped(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)

"""
_OWN_STEP = """\
    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {**self.compute_metrics(x, y, y_pred, sample_weight), "loss": loss}

"""
_GENERATOR = """\
def batches():
    while True:
        for start in range(0, {count}, {batch}):
            yield keras.tree.map_structure(lambda a: a[start:start + {batch}], ({data}))
"""
_PY_DATASET = """\
class Rows(keras.utils.PyDataset):
    def __len__(self):
        return {steps}

    def __getitem__(self, number):
        return keras.tree.map_structure(lambda a: a[number * {batch}:(number + 1) * {batch}], ({data}))


data = Rows()
"""


def write(program: dict[str, Any]) -> str:
    """The program as code."""
    policy = program["precision"]
    head = _HEAD.format(floatx="float64" if policy == "float64" else "float32", policy=policy, seed=program["seed"])
    model = [*_build(program), "", "", *_compile(program), ""]
    return "\n".join([head, *_data(program), "", "", *model, *_calls(program), ""])


def _data(program: dict[str, Any]) -> list[str]:
    count, kind = program["data"]["examples"], program["data"]["kind"]
    lines = []
    for each in program["inputs"]:
        shape, data = INPUTS[each["kind"]]
        lines.append(f"{each['name']} = {_array(data, count, shape)}")
    lines += [
        f"{each['name']} = {_array(TARGETS[each['target']], count, each['shape'])}" for each in program["outputs"]
    ]
    lines += [f"x = {_struct(program['inputs_as'], program['inputs'])}"]
    lines += [f"y = {_struct(program['outputs_as'], program['outputs'])}"]
    if program["data"]["weights"] == "sample":
        drawn = {}
        for each in program["outputs"]:  # an example's weight, or one for each of its steps
            size = expression([count, *([] if each["target"] == "letters" else each["shape"][:-1])])
            drawn[each["name"]] = code(f"random.choice([0.0, 0.5, 1.0, 2.0], {size})")
        lines.append(f"w = {_shaped(program['outputs_as'], drawn)}")
    if kind != "arrays" and program["precision"] != "float64":  # which fit casts arrays to, and nothing else
        cast = "lambda a: a.astype('float32') if a.dtype.kind == 'f' else a"
        names = ", ".join(_names(program))
        lines.append(f"{names} = keras.tree.map_structure({cast}, ({names}))")
    if kind == "tensors":
        names = ", ".join(_names(program))
        lines.append(f"{names} = keras.tree.map_structure(tf.convert_to_tensor, ({names}))")
    if kind == "dataset":
        data = ", ".join(_names(program))
        shuffle = f".shuffle({count}, seed=1)" if program["data"]["shuffled"] else ""
        lines.append(f"data = tf.data.Dataset.from_tensor_slices(({data})){shuffle}.batch({program['data']['batch']})")
    own = {"generator": _GENERATOR, "PyDataset": _PY_DATASET}.get(kind)
    if own:
        batch = program["data"]["batch"]
        text = own.format(count=count, batch=batch, steps=-(-count // batch), data=", ".join(_names(program)))
        lines += ["", "", *text.splitlines()]
    return lines


def _names(program: dict[str, Any]) -> list[str]:
    return ["x", "y", *(["w"] if program["data"]["weights"] == "sample" else [])]


def _array(text: str, count: int, shape: list[int]) -> str:
    """The code of an array, with numbers for `n` and `s`."""
    spread = "".join(f", {size}" for size in shape)
    text = text.replace(", *s[:-1]", "".join(f", {size}" for size in shape[:-1])).replace(", *s", spread)
    text = text.replace("s[-1]", str(shape[-1])).replace("s[0]", str(shape[0]))
    return re.sub(r"\(n\b", f"({count}", text)


def _struct(form: str, parts: list[dict[str, Any]]) -> str:
    return _shaped(form, {each["name"]: code(each["name"]) for each in parts})


def _shaped(form: str, parts: dict[str, Any]) -> str:
    """Terms by name as one of them, a tuple or a dict."""
    if form == "dict":
        return expression(parts)
    if form == "one":
        return expression(next(iter(parts.values())))
    return "(" + "".join(f"{expression(part)}, " for part in parts.values()).strip() + ")"


def _inputs(program: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for each in program["inputs"]:
        shape, kind = INPUTS[each["kind"]][0], each["kind"]
        of = f"{expression(shape)}"
        if program["stateful"]:
            of = f"batch_shape={expression([program['data']['batch'], *shape])}"
        dtype = {"words": ', dtype="int32"', "numbers": ', dtype="int64"', "strings": ', dtype="string"'}.get(kind, "")
        lines.append(f"    {prefix}{each['name']} = keras.Input({of}, name={each['name']!r}{dtype})")
    return lines


def _build(program: dict[str, Any]) -> list[str]:
    head = "def build():"
    if program["form"] in ("sequential", "unbuilt"):
        lines = [head, "    model = keras.Sequential()"]
        if program["form"] == "sequential":
            (line,) = _inputs(program)
            lines.append(f"    model.add({line.split(' = ', 1)[1]})")
        lines += [f"    model.add({expression(node['layer'])})" for node in program["nodes"]]
        return [*lines, "    return model"]
    lines = [head, *_inputs(program)]
    shared = {node["layer"]["shared"] for node in program["nodes"] if "shared" in node["layer"]}
    for node in program["nodes"]:
        layer = node["layer"]
        name, of = node["name"], ", ".join(node["of"])
        of = f"[{of}]" if node["how"] == "list" else of
        if "shared" in layer:
            made = f"layer_{layer['shared']}"
        elif name in shared:
            made = f"layer_{name}"
            lines.append(f"    {made} = {expression(layer)}")
        else:
            made = expression(layer)
        lines.append(f"    {name} = {made}({of})")
    ends = [{"name": each["name"], "of": code(each["of"])} for each in program["outputs"]]
    outputs = _shaped(program["outputs_as"], {each["name"]: each["of"] for each in ends})
    inputs = _struct(program["inputs_as"], program["inputs"])
    lines.append(f"    model = keras.Model({inputs}, {outputs})")
    if program["form"] == "nested":
        by_name = {each["name"]: code(f"of_{each['name']}") for each in program["inputs"]}
        lines += _inputs(program, prefix="of_")
        given = _shaped(program["inputs_as"], by_name)
        lines.append(f"    model = keras.Model({given}, model({given}))")
    if program["form"] == "subclass":
        step = _OWN_STEP.splitlines() if program["own_step"] else []
        return [*_SUBCLASS.splitlines(), *step, "", *lines, "    return Wrapped(model)"]
    return [*lines, "    return model"]


def _compile(program: dict[str, Any]) -> list[str]:
    outputs, form = program["outputs"], program["outputs_as"]
    lines = ["def compiled(model, optimizer):", "    model.compile(", "        optimizer=optimizer,"]
    lines.append(f"        loss={_listed(form, {each['name']: each['loss'] for each in outputs})},")
    weights = {each["name"]: each["weight"] or 1.0 for each in outputs if each["loss"] is not None}
    if any(each["weight"] for each in outputs) and len(weights) == len(outputs):
        lines.append(f"        loss_weights={_listed(form, weights)},")
    for key, name in (("metrics", "metrics"), ("weighted", "weighted_metrics")):
        if any(each[key] for each in outputs):
            lines.append(f"        {name}={_listed(form, {each['name']: each[key] for each in outputs})},")
    if program["steps_per_execution"] > 1:
        lines.append(f"        steps_per_execution={program['steps_per_execution']},")
    lines += ["        jit_compile=False,", "    )"]
    if "ScheduleFreeAdamW" in str([program["optimizer"], program["calls"]]):
        # Built while fit traces it, it begins with momentums of 0 in place of the weights, and the weights are lost.
        lines.append("    model.optimizer.build(model.trainable_variables)")
    return [*lines, "    return model", ""]


def _listed(form: str, parts: dict[str, Any]) -> str:
    return expression(list(parts.values())) if form == "list" else _shaped(form, parts)


def _calls(program: dict[str, Any]) -> list[str]:
    optimizer = expression(program["optimizer"])
    lines = [f"model = compiled(build(), {optimizer})"]
    for number, each in enumerate(program["calls"], 1):
        if each["do"] in ("fit", "keras"):
            lines.append(f"note('fit {number}', {_fit(program, each)})")
        elif each["do"] == "compile":
            optimizer = expression(each["optimizer"])
            lines.append(f"model = compiled(model, {optimizer})")
        elif each["do"] == "freeze":
            lines.append(f"model.layers[{each['layer']} % len(model.layers)].trainable = {each['trainable']}")
            lines.append(f"model = compiled(model, {optimizer})")
        elif each["do"] == "save":
            lines += ["model.save('between.keras')", "model = keras.models.load_model('between.keras')"]
        elif each["do"] == "weights":
            lines += ["model.save_weights('between.weights.h5')", f"model = compiled(build(), {optimizer})"]
            if program["form"] in ("unbuilt", "subclass"):
                first = f"lambda a: a[:{program['data']['batch']}]"
                lines.append(f"_ = model(keras.tree.map_structure({first}, x))  # which builds it")
            lines.append("model.optimizer.build(model.trainable_variables)")
            lines.append("model.load_weights('between.weights.h5')")
        elif each["do"] == "score":
            lines += _score(program, f" {number}")
    lines += _score(program, "", program["ends"])
    if program["form"] != "subclass":
        lines.append("model.save('end.keras')")
    return lines


def _score(program: dict[str, Any], at: str, ways: Sequence[str] = ("evaluate", "predict")) -> list[str]:
    data = "data" if program["data"]["kind"] == "dataset" else "x, y"
    of = "data" if program["data"]["kind"] == "dataset" else "x"
    batch = "" if program["data"]["kind"] == "dataset" else f", batch_size={program['data']['batch']}"
    lines = {
        "evaluate": f"note('evaluate{at}', evaluate(model, {data}{batch}, verbose=0, return_dict=True))",
        "predict": f"note('predict{at}', predict(model, {of}{batch}, verbose=0))",
    }
    return [lines[way] for way in ways]


def _fit(program: dict[str, Any], each: dict[str, Any]) -> str:
    data, kind = program["data"], program["data"]["kind"]
    given: dict[str, Any] = {"verbose": 0}
    if kind not in BATCHED:
        given |= {"batch_size": data["batch"], "shuffle": False}
    given |= each["given"]
    if data["weights"] == "sample" and kind not in BATCHED:
        given["sample_weight"] = code("w")
    if data["weights"] == "class":
        given["class_weight"] = {0: 0.5, 1: 2.0}
    if each["validation"] == "data":
        names, held_out = ", ".join(_names(program)), 2 * data["batch"]
        made = f"keras.tree.map_structure(lambda a: a[:{held_out}], ({names}))"
        given["validation_data"] = code("data.take(2)" if kind == "dataset" else made)
    if each["callbacks"]:
        given["callbacks"] = each["callbacks"]
    sources = {"dataset": "data.repeat()" if each["repeats"] else "data", "generator": "batches()", "PyDataset": "data"}
    of = sources.get(kind, "x, y")
    arguments = ", ".join(f"{name}={expression(value)}" for name, value in given.items())
    if each["do"] == "keras":
        return f"model.fit({of}, {arguments})"
    return f"fit(model, {of}, {arguments})"
