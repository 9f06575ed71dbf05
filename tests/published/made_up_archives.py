"""Made-up archives: folders of images and texts as the scripts expect them."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from functools import lru_cache, partial

import made_up_tables
import numpy as np

__all__ = ["MAKERS", "image"]

_drawn = np.random.default_rng(2)


@lru_cache
def image(width: int, height: int, kind: str = "JPEG", number: int = 0) -> bytes:
    """An image file of noise."""
    from PIL import Image

    of = np.random.default_rng(number)
    small = Image.fromarray(of.integers(0, 256, (8, 8, 3)).astype("uint8"))
    file = io.BytesIO()
    small.resize((width, height)).save(file, kind)
    return file.getvalue()


def _zip(files: Callable[[], dict[str, bytes]]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files().items():
            archive.writestr(name, content)
    return whole.getvalue()


def _tar(files: Callable[[], dict[str, bytes]]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name, content in files().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def _images(folders: list[str], each: int, ending: str = "jpg", size: int = 96) -> dict[str, bytes]:
    kind = {"jpg": "JPEG", "png": "PNG"}[ending]
    return {
        f"{folder}/{number}.{ending}": image(size, size, kind, number % 5)
        for folder in folders
        for number in range(each)
    }


def _movie_reviews() -> dict[str, bytes]:
    folders = ["train/pos", "train/neg", "train/unsup", "test/pos", "test/neg"]
    return {
        f"aclImdb/{folder}/{number}.txt": made_up_tables.words(10, 80).encode()
        for folder in folders
        for number in range(160)
    }


def _newsgroups() -> dict[str, bytes]:
    return {
        f"20_newsgroup/group.{group}/{number}": b"From: x\nSubject: y\n" * 6 + made_up_tables.words(20, 60).encode()
        for group in range(20)
        for number in range(20)
    }


def _pairs(name: str, columns: int, rows: int = 2000) -> dict[str, bytes]:
    sides = [lambda row: made_up_tables.words().capitalize() + "."] * columns
    return {name: made_up_tables.lines(rows, *sides, between="\t")}


def _movielens_small() -> dict[str, bytes]:
    drawn = made_up_tables
    ratings = drawn.table(
        2000,
        "userId,movieId,rating,timestamp",
        [drawn.whole(1, 60), drawn.whole(1, 90), drawn.of(1.0, 3.5, 5.0), drawn.whole(1, 9)],
    )
    movies = drawn.table(
        90, "movieId,title,genres", [lambda r: r + 1, lambda r: f"Film {r} (1999)", drawn.of("Drama", "Action|Comedy")]
    )
    return {"ml-latest-small/ratings.csv": ratings, "ml-latest-small/movies.csv": movies}


def _movielens() -> dict[str, bytes]:
    drawn = made_up_tables
    users = [
        lambda r: r + 1,
        drawn.of("M", "F"),
        drawn.of(1, 18, 25, 35),
        drawn.whole(0, 21),
        drawn.whole(10000, 99999),
    ]
    ratings = [drawn.whole(1, 61), drawn.whole(1, 91), drawn.whole(1, 6), drawn.whole(1, 10**9)]
    movies = [lambda r: r + 1, lambda r: f"Film {r} (1999)", drawn.of("Drama", "Action|Comedy")]
    return {
        "ml-1m/users.dat": drawn.lines(60, *users, between="::"),
        "ml-1m/ratings.dat": drawn.lines(3000, *ratings, between="::"),
        "ml-1m/movies.dat": drawn.lines(90, *movies, between="::"),
    }


def _cora() -> dict[str, bytes]:
    drawn = made_up_tables
    names = ["Case_Based", "Genetic_Algorithms", "Neural_Networks", "Probabilistic_Methods", "Reinforcement_Learning"]
    names += ["Rule_Learning", "Theory"]
    papers = [lambda r: 1000 + r, *[drawn.of(0, 1)] * 1433, lambda r: names[r % 7]]
    cites = [drawn.whole(1000, 1280), drawn.whole(1000, 1280)]
    return {
        "cora/cora.content": drawn.lines(280, *papers, between="\t"),
        "cora/cora.cites": drawn.lines(900, *cites, between="\t"),
    }


def _traffic() -> dict[str, bytes]:
    distances = np.abs(_drawn.normal(size=(228, 228))) * 1e4
    speeds = _drawn.uniform(20, 70, (1500, 228))
    return {f"PeMSD7_{name}_228.csv": _csv(values) for name, values in (("W", distances), ("V", speeds))} | {
        f"PeMSD7_Full/PeMSD7_{name}_228.csv": _csv(values) for name, values in (("W", distances), ("V", speeds))
    }


def _csv(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> bytes:
    file = io.BytesIO()
    np.savetxt(file, values, fmt="%.3f", delimiter=",")
    return file.getvalue()


def _glove(words: int = 300) -> dict[str, bytes]:
    known = ["the", "a", "good", "bad", "film", "was", "is", "not", "very", "actor", *[f"w{n}" for n in range(words)]]
    rows = (f"{word} {' '.join('0.1' for _ in range(100))}" for word in known)
    return {"glove.6B.100d.txt": ("\n".join(rows) + "\n").encode()}


def _books() -> dict[str, bytes]:
    text = "\n".join(made_up_tables.words(8, 30) for _ in range(2000)).encode()
    return {f"simplebooks/simplebooks-92-raw/{name}.txt": text for name in ("train", "valid", "test")}


def _captchas() -> dict[str, bytes]:
    letters = np.array(list("2345678bcdefgmnpwxy"))
    names = {"".join(_drawn.choice(letters, 5)) for _ in range(400)}
    return {
        f"captcha_images_v2/{name}.png": image(200, 50, "PNG", number % 5) for number, name in enumerate(sorted(names))
    }


def _pets() -> dict[str, bytes]:
    from PIL import Image

    files = {}
    for number in range(60):
        files[f"images/Abyssinian_{number}.jpg"] = image(160, 160, "JPEG", number % 5)
        file = io.BytesIO()
        Image.fromarray((_drawn.integers(1, 4, (160, 160))).astype("uint8")).save(file, "PNG")
        files[f"annotations/trimaps/Abyssinian_{number}.png"] = file.getvalue()
    return files


def _segments() -> dict[str, bytes]:
    folder = "BSR/BSDS500/data/images"
    return _images([f"{folder}/{name}" for name in ("train", "val", "test")], 24, size=300)


def _flickr() -> dict[str, bytes]:
    return {f"Flicker8k_Dataset/{number}.jpg": image(96, 96, "JPEG", number % 5) for number in range(80)}


def _captions() -> dict[str, bytes]:
    rows = [f"{number}.jpg#{of}\t{made_up_tables.words(6, 12)}" for number in range(80) for of in range(5)]
    return {"Flickr8k.token.txt": ("\n".join(rows) + "\n").encode()}


MAKERS: dict[str, Callable[[], bytes]] = {
    "kagglecatsanddogs_5340.zip": partial(_zip, partial(_images, ["PetImages/Cat", "PetImages/Dog"], 160)),
    "aclImdb_v1.tar.gz": partial(_tar, _movie_reviews),
    "news20.tar.gz": partial(_tar, _newsgroups),
    "spa-eng.zip": partial(_zip, partial(_pairs, "spa-eng/spa.txt", 2)),
    "fra-eng.zip": partial(_zip, partial(_pairs, "fra.txt", 3, 11000)),
    "ml-latest-small.zip": partial(_zip, _movielens_small),
    "ml-1m.zip": partial(_zip, _movielens),
    "cora.tgz": partial(_tar, _cora),
    "PeMSD7_Full.zip": partial(_zip, _traffic),
    "glove.6B.zip": partial(_zip, _glove),
    "simplebooks.zip": partial(_zip, _books),
    "captcha_images_v2.zip": partial(_zip, _captchas),
    "images.tar.gz": partial(_tar, lambda: {k: v for k, v in _pets().items() if k.startswith("images")}),
    "annotations.tar.gz": partial(_tar, lambda: {k: v for k, v in _pets().items() if k.startswith("annotations")}),
    "BSR_bsds500.tgz": partial(_tar, _segments),
    "Flickr8k_Dataset.zip": partial(_zip, _flickr),
    "Flickr8k_text.zip": partial(_zip, _captions),
    "jena_climate_2009_2016.csv.zip": partial(_zip, lambda: {"jena_climate_2009_2016.csv": made_up_tables.jena()}),
    "lol_dataset.zip": partial(
        _zip,
        lambda: {
            **_images([f"lol_dataset/our485/{name}" for name in ("low", "high")], 320, "png", 256),
            **_images([f"lol_dataset/eval15/{name}" for name in ("low", "high")], 4, "png", 256),
        },
    ),
    "celeba_gan/data.zip": partial(_zip, partial(_images, ["img_align_celeba"], 200, size=64)),
    "imagenette2-320.tgz": partial(
        _tar,
        partial(
            _images, [f"imagenette2-320/{split}/{name}" for split in ("train", "val") for name in "abcdefghij"], 20
        ),
    ),
}
