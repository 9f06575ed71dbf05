"""Data with an order of its own is read as `fit`, `evaluate` and `predict` read it: by Keras's own adapters."""

import json
import random
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here
from same_as_fit import Fit, assert_same

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DataError
from tfmb.training.input.first_inputs import zeros_of
from tfmb.training.input.keras_batches import StreamPipeline, open_stream, stream_kind

pytestmark = [
    pytest.mark.filterwarnings("ignore:Your input ran out"),  # Keras's, after each pass of an unknown length
    pytest.mark.filterwarnings("ignore:the data ran out"),
    pytest.mark.filterwarnings("ignore:StopsAfter must see every batch"),
]
_random = np.random.default_rng(0)
X, Y = _random.normal(size=(18, 4)).astype("float32"), _random.normal(size=(18, 1)).astype("float32")
WEIGHTS, CLASSES = _random.uniform(0.5, 2.0, 18).astype("float32"), np.arange(18) % 3
SIZE = 5  # of a batch; the last one is smaller
PASS = range(0, 18, SIZE)
BATCHES = 4  # a pass


def build(units: int = 1, loss: Any = "mse", metric: Any = "mae") -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, weighted_metrics=[metric])
    return model


def partition(*arrays: Any) -> list[tuple[Any, ...]]:
    """The batches of a pass."""
    return [tuple(array[at : at + SIZE] for array in arrays) for at in PASS]


def once(*arrays: Any) -> Iterator[Any]:
    yield from partition(*(arrays or (X, Y)))


def endless(*arrays: Any) -> Iterator[Any]:
    while True:
        yield from once(*arrays)


class Pieces(keras.utils.PyDataset):
    """Batches by number, which also notes what it is asked for.

    Each of its passes begins with another batch, where all of one are drawn before the next begins.
    """

    def __init__(self, *arrays: Any, size: Any = BATCHES, turns: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.batches, self.size, self.calls = partition(*(arrays or (X, Y))), size, list[str]()
        self.turns = int(turns and size is not None)

    @property
    def num_batches(self) -> Any:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.batches[index % len(self.batches)]

    def on_epoch_begin(self) -> None:
        random.seed(len(self.calls))  # decides the order of a shuffled pass
        self.calls.append("begin")

    def on_epoch_end(self) -> None:
        self.calls.append("end")
        self.batches = self.batches[self.turns :] + self.batches[: self.turns]


class Tensor(np.ndarray):
    """As much of a PyTorch tensor as Keras asks for."""

    def cpu(self) -> "Tensor":
        return self


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Makes a stand-in of PyTorch's DataLoader: what Keras knows of it."""
    data = types.ModuleType("torch.utils.data")

    class DataLoader:
        __module__ = "torch.utils.data.dataloader"
        batch_size, dataset = SIZE, range(18)

        def __len__(self) -> int:
            return len(PASS)

        def __iter__(self) -> Iterator[Any]:
            yield from ([array.view(Tensor) for array in batch] for batch in partition(X, Y))

    # Modules that are made here: mypy knows nothing of what they hold.
    data.DataLoader = DataLoader  # type: ignore[attr-defined]
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch.utils")
    torch.utils, utils.data = utils, data  # type: ignore[attr-defined]
    for name, module in {"torch": torch, "torch.utils": utils, "torch.utils.data": data}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return DataLoader


def with_nothing(*_: Any) -> Iterator[Any]:
    """An optional input and a target that are not there."""
    yield from (({"a": x, "b": None}, None) for x, _ in partition(X, Y))


TRAINED: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "generator": (once, {}),
    "weights": (lambda: once(X, Y, WEIGHTS), {}),
    "endless": (endless, {"steps_per_epoch": 3, "epochs": 3}),
    "steps of a finite one": (once, {"steps_per_epoch": 2, "epochs": 2}),
    "PyDataset": (Pieces, {"epochs": 3}),
    "shuffled": (Pieces, {"epochs": 3, "shuffle": True}),
    "weights by number": (lambda: Pieces(X, Y, WEIGHTS), {"epochs": 2}),
    "workers": (lambda: Pieces(workers=2, max_queue_size=3), {"epochs": 2}),
    "steps of a PyDataset": (lambda: Pieces(turns=False), {"epochs": 4, "steps_per_epoch": 2}),
    "endless PyDataset": (lambda: Pieces(size=None), {"epochs": 2, "steps_per_epoch": 3}),
    "endless with workers": (lambda: Pieces(size=None, workers=2), {"epochs": 2, "steps_per_epoch": 3}),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", here(TRAINED, ["generator", "PyDataset"], "compile"))
def test_it_trains_as_in_fit(name: str) -> None:
    make, given = TRAINED[name]

    def program(fit: Fit) -> Any:
        model = build()
        return model, [fit(model, make(), **given)]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_classes_of_a_py_dataset_are_weighted_as_in_fit() -> None:
    def program(fit: Fit) -> Any:
        model = build(3, keras.losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy")
        return model, [fit(model, Pieces(X, CLASSES), class_weight={0: 2.0, 2: 0.5}, epochs=2)]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_a_loader_of_pytorch(loader: Any) -> None:
    def program(fit: Fit) -> Any:
        model = build()
        return model, [fit(model, loader(), validation_data=loader(), epochs=2)]

    ours = assert_same(program)
    np.testing.assert_allclose(tfmb.predict(ours, loader()), ours.predict(X, verbose=0), atol=1e-12)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_a_real_loader_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    examples = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))

    def program(fit: Fit) -> Any:
        torch.manual_seed(0)
        model, loader = build(), torch.utils.data.DataLoader(examples, SIZE, shuffle=True)
        return model, [fit(model, loader, epochs=2)]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_what_a_generator_leaves_out_is_left_out() -> None:
    class Optional(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            assert inputs["b"] is None
            outputs = self.dense(inputs["a"])
            self.add_loss(keras.ops.mean(keras.ops.square(outputs)))
            return outputs

    def program(fit: Fit) -> Any:
        model = Optional()
        model({"a": X[:1], "b": None})
        model.compile("sgd")
        return model, [fit(model, with_nothing())]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["SparseTensor", "csr_matrix", "RaggedTensor"])
def test_a_generator_of_what_no_array_holds(kind: str) -> None:
    import scipy.sparse

    of = {
        "SparseTensor": tf.sparse.from_dense,
        "csr_matrix": scipy.sparse.csr_matrix,
        "RaggedTensor": lambda x: tf.RaggedTensor.from_tensor(x, ragged_rank=1),
    }[kind]

    def program(fit: Fit) -> Any:
        model = build() if kind != "RaggedTensor" else keras.Sequential([keras.layers.Lambda(dense_of), build()])
        model(X[:1])
        model.compile("sgd", "mse")
        return model, [fit(model, ((of(x), y) for x, y in partition(X, Y)))]

    assert_same(program)


def dense_of(x: Any) -> Any:
    return tf.ensure_shape(x.to_tensor(), [None, 4]) if isinstance(x, tf.RaggedTensor) else x


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_a_generator_that_has_ended_gives_what_it_gives_in_fit_and_says_so() -> None:
    def program(fit: Fit) -> Any:
        model = build()
        return model, [fit(model, once(), epochs=2)]

    with pytest.warns(UserWarning, match="x is a generator that has ended: from here on a pass has its first batches"):
        assert_same(program)


SCORED: dict[str, tuple[Callable[[], Any], int | None]] = {
    "generator": (once, None),
    "endless": (endless, 3),
    "PyDataset": (Pieces, None),
    "workers": (lambda: Pieces(workers=2), None),
    "endless PyDataset": (lambda: Pieces(size=None), 6),
    "tf.data.Dataset": (lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE), 2),
}


@pytest.mark.parametrize("name", here(SCORED, ["generator"], "compile"))
def test_it_is_scored_and_predicted_as_in_keras(name: str) -> None:
    make, steps = SCORED[name]
    model = build()
    expected = model.evaluate(make(), steps=steps, verbose=0, return_dict=True)
    assert tfmb.evaluate(model, make(), steps=steps, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        tfmb.predict(model, make(), steps=steps), model.predict(make(), steps=steps, verbose=0), rtol=1e-6
    )


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SCORED)
def test_it_validates_as_in_fit(name: str) -> None:
    make, steps = SCORED[name]

    def program(fit: Fit) -> Any:
        model = build()
        return model, [fit(model, X, Y, validation_data=make(), validation_steps=steps)]

    assert_same(program)


class StopsAfter(keras.callbacks.Callback):
    """Stops the training at a batch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = batch == self.batch


@pytest.mark.compile
@pytest.mark.parametrize(
    "given", [{"epochs": 2}, {"epochs": 3, "steps_per_epoch": 3}, {"callbacks": 1}], ids=["passes", "steps", "stopped"]
)
def test_its_own_hooks_are_called_as_in_fit(given: dict[str, Any]) -> None:
    calls = []
    for fit in (keras.Model.fit, tfmb.fit):
        trained, validation = Pieces(), Pieces()
        more: dict[str, Any] = {
            key: value if key != "callbacks" else [StopsAfter(value)] for key, value in given.items()
        }
        fit(build(), trained, validation_data=validation, verbose=0, shuffle=False, **more)
        calls.append((trained.calls, validation.calls))
    assert calls[0] == calls[1]


@pytest.mark.compile
def test_its_own_hooks_are_called_as_in_evaluate_and_predict() -> None:
    model = build()
    theirs, ours = Pieces(), Pieces()
    model.evaluate(theirs, verbose=0)
    model.predict(theirs, verbose=0)
    tfmb.evaluate(model, ours, verbose=0)
    tfmb.predict(model, ours)
    assert ours.calls == theirs.calls


def test_nothing_reads_on_when_training_is_over() -> None:
    data = Pieces(size=None, workers=2)
    pipeline = StreamPipeline(open_stream(data, "PyDataset", "x"), 3)
    next(pipeline.epoch(0).iterator)
    pipeline.leave(False)
    assert not pipeline.stream.adapter.enqueuer.is_running()
    assert data.calls == ["end", "begin"]


def refused(words: str, x: Any, **given: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        tfmb.fit(build(), x, verbose=0, **given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"y": Y}, {"sample_weight": WEIGHTS}, {"validation_split": 0.2}, {"class_weight": {0: 1.0}}],
    ids=lambda given: next(iter(given)),
)
def test_what_batches_bring_themselves_is_refused_by_name(given: dict[str, Any]) -> None:
    refused(f"{next(iter(given))} cannot be given with a generator", once(), **given)
    if "class_weight" not in given:
        refused(f"{next(iter(given))} cannot be given with a PyDataset", Pieces(), **given)


def test_a_batch_size_beside_batches_is_told_to_be_unused() -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    with pytest.warns(UserWarning, match="batch_size=3 is not used: the tf.data.Dataset makes its batches itself"):
        history = tfmb.fit(build(), data, batch_size=3, verbose=0)
    assert history.params["steps"] == len(data)
    with pytest.warns(UserWarning, match="batch_size=3 is not used: the PyDataset makes"):
        tfmb.evaluate(build(), Pieces(), batch_size=3, verbose=0)
    with pytest.warns(UserWarning, match="batch_size=3 is not used"):
        tfmb.predict(build(), data, batch_size=3, verbose=0)


def test_what_keras_refuses_is_refused_in_one_line() -> None:
    refused(
        "x is a generator that cannot be read: ",
        (batch for batch in list[Any]()),
    )
    refused("must return a tuple", (list(batch) for batch in partition(X, Y)))
    refused("x is a PyDataset that cannot be read: The PyDataset has length 0", Pieces(size=0))
    refused("x is a PyDataset that cannot be read: You need to implement the `num_batches`", keras.utils.PyDataset())
    refused("class_weight", Pieces(X, CLASSES, WEIGHTS), class_weight={0: 1.0})
    refused("x is an infinite PyDataset: give steps_per_epoch", Pieces(size=None))
    with pytest.raises(ConfigError, match=r"\Ax is an infinite PyDataset: give steps\Z"):
        tfmb.evaluate(build(), Pieces(size=None))
    with pytest.raises(ConfigError, match=r"\Ax is an infinite PyDataset: give steps\Z"):
        tfmb.predict(build(), Pieces(size=None))


@pytest.mark.process
def test_processes_read_a_py_dataset(tmp_path: Path) -> None:
    """In an interpreter of its own: a fork of a process that computes may wait for ever."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, keras, numpy, tfmb\n"
        "class Pieces(keras.utils.PyDataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, number): return numpy.full((3, 2), number / 4), numpy.ones((3, 1))\n"
        "keras.utils.set_random_seed(0)\n"
        "model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "model.compile('sgd', 'mse')\n"
        "fit = tfmb.fit if sys.argv[1] == 'ours' else keras.Model.fit\n"
        "data = Pieces(workers=2, use_multiprocessing=True)\n"
        "print(fit(model, data, epochs=2, shuffle=False, verbose=0).history['loss'])\n"
    )
    found = [
        subprocess.run([sys.executable, program, who], capture_output=True, text=True, timeout=100, check=True).stdout
        for who in ("theirs", "ours")
    ]
    theirs, ours = (json.loads(each.splitlines()[-1]) for each in found)
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.compile
@pytest.mark.parametrize("workers", [1, 2])
def test_what_it_raises_is_told_in_one_line(workers: int) -> None:
    class Broken(Pieces):
        def __getitem__(self, index: int) -> Any:
            if index == BATCHES - 1:
                raise KeyError("no file\nof this name")
            return super().__getitem__(index)

    def broken() -> Iterator[Any]:
        yield from once()
        raise ValueError("no file\nof this name")

    for call in (
        lambda: tfmb.fit(build(), Broken(workers=workers), verbose=0),
        lambda: tfmb.fit(build(), broken(), verbose=0),
        lambda: tfmb.fit(build(), X, Y, validation_data=broken(), verbose=0),
        lambda: tfmb.evaluate(build(), broken(), verbose=0),
        lambda: tfmb.predict(build(), broken()),
    ):
        with pytest.raises(DataError, match=r"\Athe data cannot be read \((Key|Value)Error: [^\n]*name[^\n]*\): mend"):
            call()


def test_a_run_of_it_cannot_be_gone_on_with(tmp_path: Path) -> None:
    wanted = "nothing says that it gives the same batches again: give arrays"
    refused(f"resume=True: x is a generator, and {wanted}", once(), run_dir=tmp_path / "a", resume=True)
    refused(f"on_divergence=restore: x is a PyDataset, and {wanted}", Pieces(), run_dir=tmp_path / "a",
            on_divergence="restore")  # fmt: skip
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match=wanted):
        StreamPipeline(open_stream(once(), "generator", "x")).start_at(0, 0)


@pytest.mark.compile
def test_what_its_order_is_not_is_said_once_where_it_matters(tmp_path: Path, recwarn: Any) -> None:
    def said() -> list[str]:
        return [str(each.message) for each in recwarn if "whose order is its own" in str(each.message)]

    tfmb.fit(build(), once(), verbose=0)
    assert said() == []
    tfmb.fit(build(), once(), verbose=0, run_dir=tmp_path / "a", virtual_replicas=2)
    assert said() == [
        "x is a generator, whose order is its own and not the seed's; the run cannot be gone on with; "
        "the same bits need the same batches from it"
    ]
    recwarn.clear()
    tfmb.fit(build(), X, Y, validation_data=once(), verbose=0, run_dir=tmp_path / "b")
    assert said() == ["validation_data is a generator, whose order is its own and not the seed's"]


@pytest.mark.compile
@pytest.mark.parametrize("parts", [{"virtual_replicas": 2}, {"devices": 2}], ids=["parts", "devices"])
@pytest.mark.filterwarnings("ignore:x is a generator, whose order is its own")
def test_its_batches_are_cut(parts: dict[str, Any]) -> None:
    found = []
    for given in ({}, parts):
        keras.utils.set_random_seed(0)
        found.append(tfmb.fit(build(), once(), verbose=0, **given).model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.compile
def test_a_model_is_built_of_shapes_alone() -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = Pieces()
    tfmb.fit(model, data, verbose=0)
    assert model.weights[0].shape == (4, 1)
    spec = {
        "dense": tf.TensorSpec([None, 3, None], tf.int32),
        "text": tf.TensorSpec([None], tf.string),
        "ragged": tf.RaggedTensorSpec([None, None], tf.float32),
        "sparse": tf.SparseTensorSpec([None, 3], tf.float32),
        "none": None,
    }
    made = zeros_of(spec)
    assert {key: None if value is None else tuple(value.shape) for key, value in made.items()} == {
        "dense": (1, 3, 1), "text": (1,), "ragged": (1, 1), "sparse": (1, 3), "none": None,
    }  # fmt: skip
    assert made["text"].numpy().tolist() == [b""]


def test_kinds_have_names(loader: Any) -> None:
    assert [stream_kind(x) for x in (once(), Pieces(), loader(), X, iter([]), tf.data.Dataset.range(3))] == [
        "generator", "PyDataset", "PyTorch DataLoader", None, None, None,
    ]  # fmt: skip
