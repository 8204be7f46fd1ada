"""From a snapshot's rows to the arrays that a network takes.

* image    float32[N, C, H, W] in [0, 1]: 0 and 1 are the delivery's own limits
* tabular  float32[N, D] in the table's own units; a category becomes one column per value, which no attacker changes
* text     int64[N, L]: 0 pads, 1 hides a character, b + 2 is the byte b of the lower-cased UTF-8 message
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, Feature, InputSpec, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Split = Literal["train", "test"]
_BLOCK = 4096
PAD, HIDDEN, FIRST_BYTE, SYMBOLS = 0, 1, 2, 258
TYPED: tuple[int, ...] = tuple(b + FIRST_BYTE for b in range(32, 127) if not 65 <= b <= 90)
"""The character ids that an attacker types: printable ASCII without capitals."""


@dataclass(frozen=True)
class Arrays:
    """Rows as a network takes them: x `float32[N, ...]` or `int64[N, L]`, y `int64[N]`."""

    x: NDArray[np.generic]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: NDArray[np.int64]) -> "Arrays":
        """The rows at these positions, in this order."""
        return Arrays(self.x[rows], self.y[rows])


def read_spec(snapshot: Artifact[Snapshot]) -> InputSpec:
    """What a network for this data takes; the limits and scales of features come from the training rows."""
    document = snapshot.document
    if document.modality == "image":
        return InputSpec(
            modality="image",
            shape=document.shape,
            dtype="float32",
            raw_lower=document.lower,
            raw_upper=document.upper,
        )
    if document.modality == "text":
        return InputSpec(modality="text", shape=document.shape[:1], dtype="int64", columns=document.columns)
    features = tabular_features(_read_frame(snapshot, "train"), document.columns)
    return InputSpec(
        modality="tabular", shape=(len(features),), dtype="float32", features=features, columns=document.columns
    )


def read_split(snapshot: Artifact[Snapshot], split: Split, spec: InputSpec) -> Arrays:
    """The rows of `split` in file order; row i of the file is row i of the arrays."""
    document = snapshot.document
    if document.modality != spec.modality:
        raise InputError(f"{snapshot.folder}: expected {spec.modality} data, found {document.modality}")
    if document.modality == "image":
        with np.load(snapshot.open(f"{split}.npz"), allow_pickle=False) as arrays:
            return Arrays(encode(arrays["x"], spec), arrays["y"].astype(np.int64))
    frame = _read_frame(snapshot, split)
    y = _class_indices(frame[document.label].astype(str).tolist(), document.classes, snapshot)
    if document.modality == "tabular":
        return Arrays(encode(frame, spec), y)
    text = next(column.name for column in document.columns if column.kind == "text")
    return Arrays(encode([str(message) for message in frame[text]], spec), y)


def encode(raw: "pd.DataFrame | Sequence[str] | NDArray[np.generic]", spec: InputSpec) -> NDArray[np.generic]:
    """Network inputs from delivered rows: a DataFrame (tabular), strings (text), images in delivered units.

    Image values beyond the delivered limits are clipped to them; a category that training never saw is all zeros.

    Raises:
        InputError: a column is missing, a value is not a finite number, or the images have another shape.
    """
    if spec.modality == "text":
        return encode_text([str(message) for message in raw], spec.shape[0])
    if spec.modality == "image":
        return _encode_images(np.asarray(raw), spec)
    import pandas as pd

    if not isinstance(raw, pd.DataFrame):
        raise InputError(f"tabular input: expected a DataFrame, found {type(raw).__name__}")
    return _encode_table(raw, spec)


def encode_text(messages: Sequence[str], length: int) -> NDArray[np.int64]:
    """Character ids int64[N, length] of lower-cased UTF-8, cut or padded at the end."""
    ids = np.zeros((len(messages), length), dtype=np.int64)
    for row, message in enumerate(messages):
        data = np.frombuffer(message.lower().encode("utf-8", "replace")[:length], dtype=np.uint8)
        ids[row, : len(data)] = data.astype(np.int64) + FIRST_BYTE
    return ids


def decode_text(ids: NDArray[np.int64]) -> list[str]:
    """Messages from character ids int64[N, L]; hidden characters show as `·`."""
    return [_decode_one(row) for row in ids]


def tabular_features(frame: "pd.DataFrame", columns: Sequence[Column]) -> tuple[Feature, ...]:
    """The features that `columns` become, with limits, mean and standard deviation over `frame`."""
    features: list[Feature] = []
    for column in columns:
        if column.kind == "category":
            values = frame[column.name].astype(str)
            features += [_one_hot(column.name, value, values == value) for value in column.categories]
        else:
            features.append(_number(column, frame[column.name].to_numpy(np.float64)))
    return tuple(features)


def rows_digest(arrays: Arrays) -> str:
    """SHA-256 over dtype, shape and bytes of x and y: equal exactly when the rows and their order are equal."""
    digest = hashlib.sha256()
    for array in (arrays.x, arrays.y):
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def without(arrays: Arrays, row_ids: Iterable[int]) -> Arrays:
    """The rows whose position is not in `row_ids`, in order."""
    keep = np.ones(len(arrays), dtype=bool)
    keep[list(row_ids)] = False
    return Arrays(arrays.x[keep], arrays.y[keep])


def _read_frame(snapshot: Artifact[Snapshot], split: Split) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_parquet(snapshot.open(f"{split}.parquet"))


def _class_indices(names: Sequence[str], classes: Sequence[str], snapshot: Artifact[Snapshot]) -> NDArray[np.int64]:
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(names) - set(index))
    if unknown:
        raise InputError(f"{snapshot.folder}: expected the classes {list(classes)}, found {unknown[0]!r}")
    return np.array([index[name] for name in names], dtype=np.int64)


def _encode_images(raw: NDArray[np.generic], spec: InputSpec) -> NDArray[np.float32]:
    if raw.shape[1:] != spec.shape:
        raise InputError(f"images: expected shape (N, {', '.join(map(str, spec.shape))}), found {raw.shape}")
    scaled = np.empty(raw.shape, dtype=np.float32)
    for start in range(0, len(raw), _BLOCK):
        scaled[start : start + _BLOCK] = _scale_images(raw[start : start + _BLOCK], spec)
    return scaled


def _scale_images(raw: NDArray[np.generic], spec: InputSpec) -> NDArray[np.float64]:
    # float64, because float32 would round large delivered integers before they are scaled.
    x: NDArray[np.float64] = raw.astype(np.float64)
    if not np.isfinite(x).all():
        raise InputError("images: expected finite numbers, found NaN or infinity")
    return np.clip((x - spec.raw_lower) / (spec.raw_upper - spec.raw_lower), 0, 1)


def _encode_table(frame: "pd.DataFrame", spec: InputSpec) -> NDArray[np.float32]:
    missing = [column.name for column in spec.columns if column.name not in frame.columns]
    if missing:
        raise InputError(f"table: expected a column {missing[0]!r}, found {list(map(str, frame.columns))}")
    parts: list[NDArray[np.float32]] = []
    for column in spec.columns:
        if column.kind == "category":
            values = frame[column.name].astype(str).to_numpy()
            parts += [(values == value).astype(np.float32) for value in column.categories]
        else:
            parts.append(_numbers(frame, column.name))
    return np.stack(parts, axis=1)


def _numbers(frame: "pd.DataFrame", name: str) -> NDArray[np.float32]:
    try:
        values: NDArray[np.float64] = frame[name].to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"table: expected numbers in column {name!r}, found {error}") from None
    if not np.isfinite(values).all():
        raise InputError(f"table: expected finite numbers in column {name!r}, found NaN or infinity")
    return values.astype(np.float32)


def _one_hot(name: str, value: str, hits: "pd.Series[bool]") -> Feature:
    share = float(hits.mean())
    scale = (share * (1 - share)) ** 0.5 or 1.0
    return Feature(name=f"{name}={value}", lower=0.0, upper=1.0, mean=share, scale=scale, mutable=False, column=name)


def _number(column: Column, values: NDArray[np.float64]) -> Feature:
    return Feature(
        name=column.name,
        lower=float(values.min()),
        upper=float(values.max()),
        mean=float(values.mean()),
        scale=float(values.std()) or 1.0,
        mutable=not column.immutable,
        integer=column.integer,
    )


def _decode_one(ids: NDArray[np.int64]) -> str:
    text = bytes(int(i) - FIRST_BYTE for i in ids if i >= FIRST_BYTE).decode("utf-8", "replace")
    if not (ids == HIDDEN).any():
        return text
    return "".join("·" if i == HIDDEN else chr(int(i) - FIRST_BYTE) for i in ids if i != PAD)
