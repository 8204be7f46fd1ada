"""What is replayed: held-out and adversarial rows of NPZ files, as bodies of V2 requests with one row each."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import RolloutError
from holdfast.serving.protocol import DATATYPES, body

MAX_ROWS_BYTES = 2**30


@dataclass(frozen=True)
class Rows:
    """What is replayed: bodies of V2 requests with one row each, and how many classes an answer has."""

    bodies: tuple[bytes, ...]
    classes: int

    @classmethod
    def of(cls, x: NDArray[np.generic], classes: int) -> "Rows":
        """Bodies of network inputs `float32[N, ...]` or `int64[N, L]`."""
        return cls(tuple(body(row) for row in x), classes)


@dataclass(frozen=True)
class Attacks:
    """Adversarial rows for the candidate: bodies, the true labels, and how many fooled the judged model offline."""

    bodies: tuple[bytes, ...] = ()
    labels: tuple[int, ...] = ()
    fooling: int = 0


NO_ATTACKS = Attacks()


def read_rows(path: Path, classes: int) -> Rows:
    """The rows of an NPZ file: `x`, network inputs `float32[N, ...]` or `int64[N, L]`.

    Raises:
        RolloutError: it holds something else.
    """
    return Rows.of(_inputs(path, _arrays(path, ("x",))["x"]), classes)


def read_attacks(path: Path, rows: Path, classes: int) -> Attacks:
    """The adversarial rows of an NPZ file: `x` as in the file `rows`, `y` int64[N], `fooled` bool[N].

    Raises:
        RolloutError: it holds something else.
    """
    arrays, like = _arrays(path, ("x", "y", "fooled")), _arrays(rows, ("x",))["x"]
    x, y, fooled = _inputs(path, arrays["x"]), arrays["y"], arrays["fooled"]
    if x.dtype != like.dtype or x.shape[1:] != like.shape[1:]:
        raise RolloutError(f"{path}: expected x as in {rows}, {_kind(like)}, found {_kind(x)}")
    if y.shape != x.shape[:1] or y.dtype != np.int64 or not ((y >= 0) & (y < classes)).all():
        raise RolloutError(f"{path}: expected y int64[{len(x)}] with classes below {classes}, found {_kind(y)}")
    if fooled.shape != y.shape or fooled.dtype != np.bool_:
        raise RolloutError(f"{path}: expected fooled bool[{len(x)}], found {_kind(fooled)}")
    return Attacks(tuple(body(row) for row in x), tuple(y.tolist()), int(fooled.sum()))


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_ROWS_BYTES:
            raise RolloutError(f"{path}: expected at most {MAX_ROWS_BYTES} bytes of rows, found {size}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except KeyError as error:
        raise RolloutError(f"{path}: expected the array {error.args[0].split()[0]}, found none") from None
    except OSError as error:
        raise RolloutError(f"{path}: expected an NPZ file, found none that can be read ({error.strerror})") from None
    except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RolloutError(f"{path}: expected an NPZ file of plain arrays, found another: {error}") from None


def _inputs(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    if str(x.dtype) not in DATATYPES or x.ndim < 2 or not x.size:
        raise RolloutError(f"{path}: expected network inputs x, float32[N, ...] or int64[N, L], found {_kind(x)}")
    if not np.isfinite(x).all():
        raise RolloutError(f"{path}: expected finite network inputs x, found NaN or infinite ones")
    return x


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype}{list(array.shape)}"
