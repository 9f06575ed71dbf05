"""A program drawn from a seed: all that its code says, as plain data."""

from random import Random
from typing import Any

from .graphs import draw_graph
from .objectives import draw_metrics
from .optimizers import OPTIMIZERS, draw_optimizer
from .terms import calls_in
from .trainings import draw_calls, draw_data

__all__ = ["draw"]

_PRECISIONS = {"float64": 55, "float32": 21, "mixed_bfloat16": 12, "mixed_float16": 12}
_FORMS = {"functional": 65, "nested": 15, "subclass": 20}
_FREE_OF_SCHEDULES = ("ReduceLROnPlateau", "LearningRateScheduler")


def draw(seed: int) -> dict[str, Any]:
    """The program of a seed."""
    random = Random(seed)
    program: dict[str, Any] = {
        "seed": seed,
        "precision": _one_of(random, _PRECISIONS),
        "form": _one_of(random, _FORMS),
        **draw_graph(random),
    }
    if program["precision"].startswith("mixed"):
        _without_activity_regularizers(program["nodes"])
    if program["precision"] == "float64":
        _without_low_ranks(program["nodes"])
    recurrent = [n for n in program["nodes"] if n["layer"].get("call") in _RECURRENT]
    kinds = {each["kind"] for each in program["inputs"]}
    program["stateful"] = bool(recurrent) and kinds <= {"sequence", "vector"} and random.random() < 0.3
    if program["stateful"]:
        recurrent[0]["layer"]["with"]["stateful"] = True
    program["data"] = draw_data(random, program["outputs"], program["stateful"], "strings" in kinds)
    structures = ["list", "dict"]
    program["inputs_as"] = random.choice(structures if len(program["inputs"]) > 1 else ["one", "one", "dict"])
    several = len(program["outputs"]) > 1
    program["outputs_as"] = random.choice(structures if several else ["one", "one", "dict"])
    if _is_a_chain(program) and random.random() < 0.7:
        program |= {"form": random.choice(["sequential", "unbuilt"]), "inputs_as": "one", "outputs_as": "one"}
    if program["data"]["weights"] == "class" and program["outputs_as"] != "one":
        program["data"]["weights"] = None  # which fit takes for one output without a name alone
    program["own_step"] = program["form"] == "subclass" and random.random() < 0.5
    if several and random.random() < 0.15:
        program["outputs"][random.randrange(len(program["outputs"]))]["loss"] = None
    for output in program["outputs"]:
        rank = len(output["shape"])
        output["metrics"] = draw_metrics(random, output["target"], rank, program["precision"])
        output["weighted"] = (
            draw_metrics(random, output["target"], rank, program["precision"]) if random.random() < 0.3 else []
        )
        output["weight"] = random.choice([0.5, 2.0]) if several and random.random() < 0.4 else None
    program["calls"] = draw_calls(random, program)
    plain = any(name.endswith(_FREE_OF_SCHEDULES) for name in calls_in(program["calls"]))
    for place in [program, *(each for each in program["calls"] if each["do"] == "compile")]:
        names = list(OPTIMIZERS)
        if program["precision"] == "mixed_float16":
            names.remove("Nadam")  # of which Keras saves one variable less than it has, where it scales the loss
        name = random.choice(names)
        if name == "Adafactor" and program["precision"] == "mixed_float16":
            name = "Adagrad"  # Keras lists fewer of its variables where it scales the loss
        place["optimizer"] = draw_optimizer(random, name, program["precision"], plain)
        if "layers.Embedding" in str(program["nodes"]) and isinstance(place["optimizer"], dict):
            place["optimizer"]["with"].pop(
                "loss_scale_factor", None
            )  # by which Keras cannot divide an embedding's rows
    if "ScheduleFreeAdamW" in str(program) and program["form"] == "unbuilt":
        program["form"] = "sequential"
    if "callbacks.SwapEMAWeights" in set(calls_in(program["calls"])):
        _let_average(program)
    # The other generator keeps what the seed draws below.
    executions = random if _divides(program) else Random(f"executions of {seed}")
    program["steps_per_execution"] = executions.choice([1, 1, 1, 1, 2])
    program["cut"] = random.choice([None, None, None, None, None, 1, 2, 2])
    program["ends"] = random.choice([["evaluate"], ["predict"], [], [], []])
    return program


_RECURRENT = ("layers.LSTM", "layers.GRU", "layers.SimpleRNN")


def _without_activity_regularizers(part: Any) -> None:
    """Their losses are in 16 bits, and Keras cannot add them to others."""
    if isinstance(part, dict):
        part.pop("activity_regularizer", None)
        if part.get("call") == "layers.ActivityRegularization":
            part |= {"call": "layers.ReLU", "with": {}}
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _without_activity_regularizers(each)


def _without_low_ranks(nodes: list[dict[str, Any]]) -> None:
    """Keras makes their variables in 32 bits whatever the policy, which round more than 64 are allowed to."""
    for node in nodes:
        node["layer"].get("with", {}).pop("lora_rank", None)


def _is_a_chain(program: dict[str, Any]) -> bool:
    """Whether each layer takes what the one before it leaves."""
    before = [program["inputs"][0]["name"], *(node["name"] for node in program["nodes"])]
    linear = all(n["of"] == [b] and "shared" not in n["layer"] for n, b in zip(program["nodes"], before, strict=False))
    return len(program["inputs"]) == 1 and len(program["outputs"]) == 1 and linear


def _one_of(random: Random, chances: dict[str, int]) -> str:
    return random.choices(list(chances), list(chances.values()))[0]


def _let_average(program: dict[str, Any]) -> None:
    """SwapEMAWeights wants an optimizer with averages."""
    for place in [program, *(each for each in program["calls"] if each["do"] == "compile")]:
        optimizer = place["optimizer"]
        if isinstance(optimizer, str):
            names = {name.lower(): name for name in OPTIMIZERS}
            optimizer = place["optimizer"] = {"call": f"optimizers.{names[optimizer]}", "of": [], "with": {}}
        if optimizer["call"] == "optimizers.LossScaleOptimizer":  # whose averages the callback does not find
            optimizer = place["optimizer"] = optimizer["of"][0]
        optimizer["with"]["use_ema"] = True


def _divides(program: dict[str, Any]) -> bool:
    """Whether pairs of batches make an epoch."""
    data = program["data"]
    steps = {-(-data["examples"] // data["batch"])}
    for each in program["calls"]:
        given = each.get("given", {})
        if "validation_split" in given:
            return False
        if "steps_per_epoch" in given:
            steps.add(given["steps_per_epoch"])
    return all(count % 2 == 0 for count in steps)
