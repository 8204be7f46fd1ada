"""The two data sets that come with scikit-learn, parsed from the files that it installs (without importing it).

Digits: 1,797 images of 8 x 8 pixels with values 0 to 16. Breast cancer (Wisconsin, diagnostic): 569 rows, 30 numbers.
"""

import gzip
import io

import numpy as np
from numpy.typing import NDArray

FILES = {"sklearn:digits": "digits.csv.gz", "sklearn:breast-cancer": "breast_cancer.csv"}
"""Source -> the file below scikit-learn's `datasets/data`."""
DIGITS_RANGE = (0.0, 16.0)
_MEASURES = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points",
    "symmetry", "fractal dimension",
)  # fmt: skip
CANCER_COLUMNS = (
    *(f"mean {measure}" for measure in _MEASURES),
    *(f"{measure} error" for measure in _MEASURES),
    *(f"worst {measure}" for measure in _MEASURES),
)
"""The names that `sklearn.datasets.load_breast_cancer` gives the columns."""


def digits(data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8[1797, 1, 8, 8] and labels int64[1797] from the bytes of `digits.csv.gz`."""
    rows = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",")
    return rows[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)


def breast_cancer(data: bytes, label: str) -> dict[str, NDArray[np.generic]]:
    """The columns of `breast_cancer.csv`: 30 numbers and, under `label`, "malignant" or "benign"."""
    first, _, body = data.decode().partition("\n")
    classes = np.array(first.strip().split(",")[2:], dtype=object)
    rows = np.loadtxt(io.StringIO(body), delimiter=",")
    columns: dict[str, NDArray[np.generic]] = {name: rows[:, i] for i, name in enumerate(CANCER_COLUMNS)}
    return {**columns, label: classes[rows[:, -1].astype(np.int64)]}
