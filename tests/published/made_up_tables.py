"""Made-up tables and texts, with the columns of those that the scripts read."""

import gzip
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

__all__ = ["MAKERS", "lines", "table"]

_WORDS = ["the", "a", "good", "bad", "film", "was", "is", "not", "very", "actor", "house", "sun", "reads", "walks"]
_EDUCATION = ["Bachelors", "Some-college", "11th", "HS-grad", "Masters", "9th", "Doctorate"]
_drawn = np.random.default_rng(1)


def words(fewest: int = 4, most: int = 12) -> str:
    """A sentence."""
    return " ".join(_drawn.choice(_WORDS, _drawn.integers(fewest, most + 1)))


def lines(rows: int, *columns: Callable[[int], Any], between: str = ",", header: str | None = None) -> bytes:
    """A table, of what each column makes of the number of its row."""
    written = [between.join(str(column(row)) for column in columns) for row in range(rows)]
    return ("\n".join(([header] if header else []) + written) + "\n").encode()


def of(*choices: Any) -> Callable[[int], Any]:
    """A column of these, drawn."""
    return lambda _: _drawn.choice(choices)


def whole(low: int, high: int) -> Callable[[int], Any]:
    """A column of whole numbers."""
    return lambda _: _drawn.integers(low, high)


def real(low: float = 0.0, high: float = 1.0) -> Callable[[int], Any]:
    """A column of numbers."""
    return lambda _: round(_drawn.uniform(low, high), 4)


def table(rows: int, header: str, columns: list[Callable[[int], Any]], between: str = ",") -> bytes:
    """A table with names."""
    return lines(rows, *columns, between=between, header=header)


def _heart() -> bytes:
    header = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,target"
    columns = [whole(29, 77), whole(0, 2), whole(0, 5), whole(94, 200), whole(126, 500), whole(0, 2), whole(0, 3)]
    columns += [whole(71, 200), whole(0, 2), real(0, 6), whole(1, 4), whole(0, 4)]
    return table(303, header, [*columns, of("fixed", "normal", "reversible"), lambda row: row % 2])


def _adult(rows: int, first: str = "", end: str = "") -> bytes:
    columns = [whole(17, 90), of("Private", "Self-emp", "?"), whole(10000, 500000), of(*_EDUCATION), whole(1, 17)]
    columns += [of("Divorced", "Never-married", "Widowed"), of("Sales", "Tech-support", "?"), of("Wife", "Husband")]
    columns += [of("White", "Black", "Other"), of("Male", "Female"), whole(0, 5000), whole(0, 2000), whole(1, 99)]
    columns += [of("United-States", "Peru", "?"), lambda row: f"{('<=50K', '>50K')[row % 2]}{end}"]
    return first.encode() + lines(rows, *columns, between=", ")


def _census(rows: int) -> bytes:
    numbers = {0, 5, 16, 17, 18, 24, 30, 39}
    numeric = {
        0: (0, 90),
        5: (0, 5000),
        16: (0, 9000),
        17: (0, 4000),
        18: (0, 9000),
        24: (100, 9000),
        30: (0, 7),
        39: (0, 53),
    }
    columns = [whole(*numeric[at]) if at in numbers else of(f"kind {at} a", f"kind {at} b") for at in range(41)]
    return gzip.compress(lines(rows, *columns, lambda row: (" - 50000.", " 50000+.")[row % 2], between=", "))


def _cover() -> bytes:
    soils = [of(0, 1)] * 44
    numbers = [whole(1800, 3800), *[whole(0, 250)] * 9]
    return gzip.compress(lines(2000, *numbers, *soils, lambda row: row % 7 + 1))


JENA = (
    '"Date Time","p (mbar)","T (degC)","Tpot (K)","Tdew (degC)","rh (%)","VPmax (mbar)","VPact (mbar)","VPdef (mbar)",'
    '"sh (g/kg)","H2OC (mmol/mol)","rho (g/m**3)","wv (m/s)","max. wv (m/s)","wd (deg)"'
)


def jena(rows: int = 6000) -> bytes:
    """The weather of Jena."""

    def stamp(row: int) -> str:
        return f"{1 + row // 144 % 28:02}.01.2009 {row // 6 % 24:02}:{row % 6}0:00"

    return table(rows, JENA, [stamp, *[real(-10, 30)] * 14])


def _ford(rows: int) -> bytes:
    return lines(rows, lambda row: (-1, 1)[row % 2], *[real(-1, 1)] * 500, between="\t")


def _nab(rows: int) -> bytes:
    def stamp(row: int) -> str:
        return f"2014-04-{1 + row // 288:02} {row // 12 % 24:02}:{row % 12 * 5:02}:00"

    return table(rows, "timestamp,value", [stamp, real(15, 25)])


def _molecules(header: str, *columns: Callable[[int], Any]) -> bytes:
    return table(240, header, list(columns))


_SMILES = ("CCO", "c1ccccc1", "CC(=O)O", "CCN", "C1CCCCC1", "CC(C)O", "CCOC", "c1ccncc1", "CCCl", "OCCO")


def _arxiv() -> bytes:
    labels = ["['cs.CV']", "\"['cs.LG', 'stat.ML']\"", "['cs.AI']", "\"['cs.CV', 'cs.LG']\""]
    return table(
        600, "titles,summaries,terms", [lambda row: f"{words()} {row}", lambda row: words(20, 60), of(*labels)]
    )


def _text(sentences: int) -> bytes:
    return ". ".join(words(6, 20) for _ in range(sentences)).encode()


MAKERS: dict[str, Callable[[], bytes]] = {
    "heart.csv": _heart,
    "adult.data": partial(_adult, 1000),
    "adult.test": partial(_adult, 400, "|1x3 Cross validator\n", "."),
    "census-income.data.gz": partial(_census, 1500),
    "census-income.test.gz": partial(_census, 400),
    "covtype.data.gz": _cover,
    "FordA_TRAIN.tsv": partial(_ford, 320),
    "FordA_TEST.tsv": partial(_ford, 80),
    "art_daily_small_noise.csv": partial(_nab, 4032),
    "art_daily_jumpsup.csv": partial(_nab, 4032),
    "nietzsche.txt": partial(_text, 4000),
    "BBBP.csv": partial(
        _molecules, "num,name,p_np,smiles", lambda r: r, lambda r: f"m{r}", lambda r: r % 2, of(*_SMILES)
    ),
    "qm9.csv": partial(_molecules, "mol_id,smiles", lambda r: r, of(*_SMILES)),
    "250k_rndm_zinc_drugs_clean_3.csv": partial(
        _molecules, "smiles,logP,qed,SAS", of(*_SMILES), real(-1, 5), real(), real(1, 5)
    ),
    "arxiv_data.csv": _arxiv,
    "creditcard.csv": lambda: table(
        1000,
        ",".join(["Time", *[f"V{n}" for n in range(1, 29)], "Amount", "Class"]),
        [*[real()] * 30, lambda row: f'"{int(row % 50 == 0)}"'],
    ),
    "train.csv": lambda: table(
        600, "id,keyword,location,text,target", [lambda r: r, of("fire"), of("x"), lambda r: words(), lambda r: r % 2]
    ),
}
