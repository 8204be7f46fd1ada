"""Readers from bytes to rows, one for each format; those of tables all give a `Part`, those of images `ImageRows`."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from holdfast.data.snapshot import bundled
from holdfast.data.snapshot.delimited import read_delimited
from holdfast.data.snapshot.delivered import DeliveredFile, Format
from holdfast.data.snapshot.dialect import Dialect
from holdfast.data.snapshot.limits import decoded_limit
from holdfast.data.snapshot.npz import keys_of, read_npz
from holdfast.data.snapshot.parquet import read_parquet
from holdfast.data.snapshot.pictures import images, labels
from holdfast.data.snapshot.rows import ImageRows, Part
from holdfast.errors import InputError
from holdfast.workload.schema import DataConfig

_SPLIT_KEYS = ("x_train", "y_train", "x_test", "y_test")
_Arrays = dict[str, NDArray[Any]]


def read_tables(files: Sequence[DeliveredFile], config: DataConfig) -> list[Part]:
    """The cells of each file, by column.

    Raises:
        InputError: a file is not a table, or cannot be read as its format promises.
        LimitError: decoded it would take more than `data.max_bytes`.
    """
    return [_read_table(file, config) for file in files]


def read_images(files: Sequence[DeliveredFile], config: DataConfig) -> list[ImageRows]:
    """The training images and, where there are any, the held-out ones: of a second file, or of the keys of one.

    Raises:
        InputError: a file does not hold images, or cannot be read as its format promises.
        LimitError: decoded it would take more than `data.max_bytes`.
    """
    first = files[0]
    if first.format == "breast-cancer":
        raise InputError(f"{first.path}: expected images for an image workload, found a table")
    if any(file.format not in IMAGE_READERS for file in files):
        raise InputError(f"{first.path}: expected an NPZ file for an image workload, found {first.format}")
    if len(files) == 1:
        return IMAGE_READERS[first.format](first, config)
    return [_one_part(file, config) for file in files]


# --- tables ---------------------------------------------------------------------------------------------------------


def _read_table(file: DeliveredFile, config: DataConfig) -> Part:
    if file.format == "digits":
        raise InputError(f"{file.path}: expected a table for this workload, found images")
    if file.format not in TABLE_READERS:
        raise InputError(f"{file.path}: expected CSV, TSV or Parquet for a table or messages, found NPZ")
    return TABLE_READERS[file.format](file, config)


def _csv(file: DeliveredFile, config: DataConfig) -> Part:
    return _delimited(file, config, "csv")


def _tsv(file: DeliveredFile, config: DataConfig) -> Part:
    return _delimited(file, config, "tsv")


def _delimited(file: DeliveredFile, config: DataConfig, kind: Literal["csv", "tsv"]) -> Part:
    codes = [column for column, stated in config.columns_as.items() if stated != "number"]
    return read_delimited(
        file.content,
        kind,
        name=file.path,
        columns=config.columns,
        drop=config.drop,
        codes=[*codes, config.label, *([config.text] if config.text is not None else [])],
        stated=Dialect(config.delimiter, config.decimal, config.encoding),
    )


def _parquet(file: DeliveredFile, config: DataConfig) -> Part:
    return read_parquet(file.content, name=file.path, max_bytes=_limit(file, config), drop=config.drop)


def _limit(file: DeliveredFile, config: DataConfig) -> int:
    return decoded_limit(config, file.pin.bytes)


def _breast_cancer(file: DeliveredFile, config: DataConfig) -> Part:
    cells = bundled.breast_cancer(file.data, config.label)
    kept = {column: values for column, values in cells.items() if column not in config.drop}
    return Part(file.path, kept, dropped=frozenset(cells) - frozenset(kept))


# --- images ---------------------------------------------------------------------------------------------------------


def _digits(file: DeliveredFile, config: DataConfig) -> list[ImageRows]:
    return [ImageRows(file.path, *bundled.digits(file.data), bundled.DIGITS_RANGE)]


def _npz(file: DeliveredFile, config: DataConfig) -> list[ImageRows]:
    if "x" in keys_of(file.data, name=file.path):
        return [_one_part(file, config)]
    arrays = read_npz(file.data, _SPLIT_KEYS, name=file.path, max_bytes=_limit(file, config))
    return [_rows(file.path, arrays, suffix) for suffix in ("_train", "_test")]


def _one_part(file: DeliveredFile, config: DataConfig) -> ImageRows:
    suffix = "_train" if "x_train" in keys_of(file.data, name=file.path) else ""
    arrays = read_npz(file.data, (f"x{suffix}", f"y{suffix}"), name=file.path, max_bytes=_limit(file, config))
    return _rows(file.path, arrays, suffix)


def _rows(path: str, arrays: _Arrays, suffix: str) -> ImageRows:
    x = images(arrays[f"x{suffix}"], name=f"{path}[x{suffix}]")
    return ImageRows(path, x, labels(arrays[f"y{suffix}"], len(x), name=f"{path}[y{suffix}]"))


TABLE_READERS: dict[Format, Callable[[DeliveredFile, DataConfig], Part]] = {
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
    "breast-cancer": _breast_cancer,
}
IMAGE_READERS: dict[Format, Callable[[DeliveredFile, DataConfig], list[ImageRows]]] = {"npz": _npz, "digits": _digits}
