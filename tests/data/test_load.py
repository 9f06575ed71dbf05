"""A dataset from its name, and the user's own data."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfmb.data import Splits, load, load_user_data, tfds_images
from tfmb.data.source import Normalization
from tfmb.errors import ConfigError, DataError


@pytest.fixture
def _no_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST is neither cached nor prepared, and the network is down."""
    monkeypatch.setenv("TFMB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds_images, "reachable", lambda *args, **kwargs: False)


def refusal(name: str, error: type[Exception] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        load(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("_no_mnist")
def test_auto_falls_back_to_digits_and_says_so(digits: Splits) -> None:
    splits = load("auto")
    assert splits.train.fingerprint == digits.train.fingerprint
    assert splits.epochs == digits.epochs
    assert "auto" in splits.origin
    assert "MNIST is neither cached nor mirrored" in splits.origin
    assert splits.origin != digits.origin
    assert "\n" not in splits.origin


@pytest.mark.usefixtures("_no_mnist")
def test_mnist_by_name_never_becomes_another_dataset() -> None:
    message = refusal("mnist")
    assert "'mnist'" in message
    assert "--mirror" in message


@pytest.mark.usefixtures("_no_mnist")
@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_a_mirror_that_was_named_is_never_passed_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match=str(missing)):
        load(name, missing)
    monkeypatch.setenv("TFMB_MNIST_MIRROR", str(missing))
    assert str(missing) in refusal(name, DataError)


@pytest.mark.parametrize("way", ["cached", "reachable"])
def test_auto_takes_mnist_where_it_is_to_be_had(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds_images, "is_cached", lambda name: way == "cached")
    monkeypatch.setattr(tfds_images, "reachable", lambda name: way == "reachable")
    monkeypatch.setattr(tfds_images, "load_tfds", lambda name, mirror: (name, mirror))
    assert load("auto") == ("mnist", None)


@pytest.mark.parametrize(
    "name",
    [
        "nosuch",
        "no such",
        "minst",
        "a\nb",
        "nosuch/config:1.0.0",
        "mnist/config",
        "mnist:",
        "mnist:9.9.9",
        "mnist/split=1",
        "x" * 300,
        "{}",
    ],
)
def test_an_unknown_name_is_refused_in_one_line_that_says_what_to_give(name: str) -> None:
    message = refusal(name)
    assert message.startswith(f"unknown dataset {name!r}"[:200])
    assert "give auto, mnist, digits" in message


@pytest.mark.parametrize("name", ["imdb_reviews", "imagenet2012"], ids=["text", "images of many sizes"])
def test_a_dataset_that_is_not_for_us_is_refused_before_any_download(name: str) -> None:
    assert f"dataset {name!r}" in refusal(name)


def write_idx_folder(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1], np.uint8)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return images


@pytest.mark.parametrize("name", ["{folder}", "./mine", "../here/mine", "mine", "~/mine"])
def test_a_folder_of_idx_files_by_its_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_idx_folder(tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    splits = load(name.format(folder=tmp_path / "here" / "mine"))
    np.testing.assert_array_equal(splits.train.examples, images[..., None])
    assert "IDX" in splits.origin


@pytest.mark.parametrize(
    "name",
    ["./nothing", "/nothing/here", "~/nothing", "~no-such-user/mine", f"/{'x' * 300}"],
    ids=lambda name: name[:9],
)
def test_a_path_without_a_folder_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "folder" in refusal(name, DataError)


Define = Callable[[str], None]


@pytest.fixture
def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Define]:
    """Writes `own_data.py` with a function `load` whose body is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    head = "import numpy as np\n\nX = np.arange(12.0).reshape(6, 2)\nY = np.arange(6) % 3\n"

    def write(body: str) -> None:
        (tmp_path / "own_data.py").write_text(f"{head}\n\ndef load():\n    {body}\n")

    yield write
    sys.modules.pop("own_data", None)


X = np.arange(12.0).reshape(6, 2)
Y = np.arange(6) % 3


@pytest.mark.parametrize(
    ("body", "test_size"),
    [
        ("return X, Y", None),
        ("return [X, Y]", None),
        ("return X, Y.tolist()", None),
        ("return (X, Y), (X[:2], Y[:2])", 2),
        ("return [X, Y], [X[:2], Y[:2]]", 2),
        ("return ((X, Y), (X[:1], Y[:1]))", 1),
    ],
)
def test_the_users_data_in_every_accepted_form(define: Define, body: str, test_size: int | None) -> None:
    define(body)
    splits = load_user_data("own_data:load")
    np.testing.assert_array_equal(splits.train.examples, X)
    np.testing.assert_array_equal(splits.train.labels, Y)
    assert splits.train.num_classes == 3
    assert (splits.test and splits.test.size) == test_size
    assert splits.normalization is None
    assert splits.epochs >= 1
    assert "own_data:load" in splits.origin
    assert splits.train.name == "own_data:load/train"


def test_the_users_splits_are_taken_as_they_are(define: Define) -> None:
    define("from tfmb.data import load\n    return load('digits')")
    assert "digits" in load_user_data("own_data:load").origin


def test_the_users_dict_of_inputs_and_float_targets(define: Define) -> None:
    define("return {'a': X, 'b': X[:, 0]}, X[:, 1]")
    splits = load_user_data("own_data:load")
    assert set(splits.train.examples) == {"a", "b"}
    assert splits.train.num_classes is None
    assert splits.test is None


def test_the_users_byte_images_have_their_normalisation_measured(define: Define) -> None:
    define("return (np.arange(6) * 51).astype(np.uint8).reshape(6, 1, 1, 1), Y")
    splits = load_user_data("own_data:load")
    assert splits.normalization == Normalization(mean=0.5, std=0.3416)


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("return None", ConfigError, "returned NoneType"),
        ("return X", ConfigError, "returned ndarray"),
        ("return {'x': X, 'y': Y}", ConfigError, "returned dict"),
        ("return (X,)", ConfigError, "return (x, y)"),
        ("return X, Y, X", ConfigError, "return (x, y)"),
        ("return (X, Y), (X, Y), (X, Y)", ConfigError, "return (x, y)"),
        ("yield X, Y", ConfigError, "returned generator"),
        ("return X, Y[:5]", DataError, "unequal length"),
        ("return X[:0], Y[:0]", DataError, "no examples"),
        ("return X / 0 * 0, Y", DataError, "NaN"),
        ("return X, Y - 1", DataError, "label -1"),
        ("return (X, Y), (X, Y + 1)", DataError, "label 3 is out of range [0, 3)"),
        ("return (X, Y), (X, Y[:1])", DataError, "own_data:load/test"),
        ("return None, Y", DataError, "x is needed"),
        ("return 'x', 'y'", DataError, "scalar"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_the_user_may_not_return(define: Define, body: str, error: type[Exception], words: str) -> None:
    define(body)
    with pytest.raises(error) as caught:
        load_user_data("own_data:load")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_users_function_comes_through(define: Define) -> None:
    define("return 1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_user_data("own_data:load")


@pytest.mark.parametrize("reference", ["own_data", "own_data:nothing", "own_datum:load"])
def test_a_reference_to_nothing_names_the_option(define: Define, reference: str) -> None:
    define("return X, Y")
    with pytest.raises(ConfigError, match="--dataset"):
        load_user_data(reference)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digits", "digits needs none"),
        ("{folder}", "needs none"),
        ("mnist", "no such folder"),
        ("auto", "no such folder"),
    ],
)
def test_a_mirror_that_changes_nothing_or_is_none_is_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "idx").mkdir()
    with pytest.raises((ConfigError, DataError), match=words):
        load(name.format(folder=tmp_path / "idx"), tmp_path / "nowhere")


def test_a_folder_may_be_called_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one of IDX files, but for a mirror that is given: then the name is the dataset's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    with pytest.raises(DataError, match="give a folder with the four IDX files"):
        load("mnist")
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(tfds_images, "load_tfds", lambda *given: asked.append(given))
    load("mnist", "mnist")
    assert asked == [("mnist", "mnist")]
