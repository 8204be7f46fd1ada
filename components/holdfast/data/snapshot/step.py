"""Reads a delivery once, splits it, pins it."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, Review, Snapshot, SourceFile
from holdfast.artifacts.folder import Artifact, seal, write_artifact
from holdfast.data.snapshot import bundled, merkle
from holdfast.data.snapshot.columns import Part, class_labels, describe, find_classes, known_classes, pick
from holdfast.data.snapshot.delimited import read_delimited
from holdfast.data.snapshot.download import Wanted, download
from holdfast.data.snapshot.npz import keys_of, read_npz
from holdfast.data.snapshot.parquet import read_parquet
from holdfast.data.snapshot.pictures import class_names, images, labels
from holdfast.data.snapshot.reviewed import Kept, keep
from holdfast.data.snapshot.split import holdout
from holdfast.data.snapshot.tell import quoted
from holdfast.errors import InputError, IntegrityError, LimitError
from holdfast.modality import modality_of
from holdfast.modality.protocol import Storage
from holdfast.quarantine.reviews import find_review
from holdfast.quarantine.rows import image_digests, table_digests
from holdfast.workload.schema import DataConfig, SnapshotConfig

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "tsv", "parquet", "npz"]
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet", ".npz": "npz"}
_SPLIT_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MIN_ROWS = 2


def snapshot(
    config: SnapshotConfig, out: Path, *, data: Path | None = None, review: str | None = None
) -> Artifact[Snapshot]:
    """Reads the delivery that `config` names (or the file `data` instead of it) and writes its snapshot to `out`.

    Relative paths are relative to the working directory. Rows that the review (`review`, or the one that `config`
    names) dropped are left out of both parts, after these were chosen.

    Raises:
        InputError: the delivery cannot be used; the message names the file, what was expected and what was found.
        LimitError: it is larger than `data.max_bytes`.
        IntegrityError: it has not the digest that the workload promises.
        ArtifactError: there is no such review.
    """
    named = config.data.review if review is None else review
    found = None if named is None else find_review(named)
    files = _read_delivery(config.data, data)
    return _WRITERS[modality_of(config.modality).storage](config, files, out, found)


# --- the files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """One file of the delivery: its path relative to the delivery, and all its bytes."""

    path: str
    data: bytes
    format: Format | None
    """None: one of the bundled data sets."""

    @property
    def pin(self) -> SourceFile:
        return SourceFile(path=self.path, sha256=hashlib.sha256(self.data).hexdigest(), bytes=len(self.data))


def _read_delivery(config: DataConfig, override: Path | None) -> list[_File]:
    """The file of the training rows and, where there is one, that of the held-out rows."""
    if override is None and config.source in bundled.FILES:
        return [_File(config.source, _bundled_bytes(config.source, config.max_bytes), None)]
    if override is None and config.source.startswith("sklearn:"):
        raise InputError(f"{config.source}: expected one of {quoted(bundled.FILES)}")
    where = _fetched(config) if override is None else override
    paths = [where] if config.test is None else [where, Path(config.test)]
    names = _names(config, override, paths)
    files = []
    for path, name in zip(paths, names, strict=True):
        format_ = _format(config, name)
        files.append(_File(name, _read_bytes(path, config.max_bytes), format_))
    if override is None and config.sha256 is not None and files[0].pin.sha256 != config.sha256:
        raise IntegrityError(
            f"{where}: expected sha256 {config.sha256[:12]}… (data.sha256), found {files[0].pin.sha256[:12]}…"
        )
    return files


def _fetched(config: DataConfig) -> Path:
    if not config.source.startswith(("https://", "http://")):
        return Path(config.source)
    if config.sha256 is None:
        raise InputError(f"{config.source}: expected data.sha256 beside a URL, found none; downloads are pinned")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return download(Wanted(config.source, config.sha256, config.max_bytes), home / "holdfast" / "downloads")


def _names(config: DataConfig, override: Path | None, paths: Sequence[Path]) -> list[str]:
    """Paths relative to the delivery: the file names, or what tells two files of one name apart."""
    url = override is None and config.source.startswith(("https://", "http://"))
    first = config.source.split("?")[0].rstrip("/").rpartition("/")[2] if url else paths[0].name
    names = [first, *(path.name for path in paths[1:])]
    if len(set(names)) < len(names):
        common = os.path.commonpath([path.absolute().parent for path in paths])
        names = [path.absolute().relative_to(common).as_posix() for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"{paths[0]}: expected another file in data.test, found the same one")
    return [unicodedata.normalize("NFC", name) for name in names]


def _format(config: DataConfig, name: str) -> Format:
    if config.format != "auto":
        return config.format
    suffix = Path(name).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{name}: expected a name that ends in {', '.join(_SUFFIXES)}, or data.format; found {suffix!r}"
        )
    return _SUFFIXES[suffix]


def _bundled_bytes(source: str, max_bytes: int) -> bytes:
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise InputError(f"{source}: expected scikit-learn in this environment, found none")
    return _read_bytes(Path(spec.origin).parent / "datasets" / "data" / bundled.FILES[source], max_bytes)


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    """All bytes of a regular file: what is hashed later is what was read, and it did not change in between."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{path}: expected a data file, found none that can be read ({error.strerror})") from None
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: expected a regular file, found something else")
    with os.fdopen(descriptor, "rb") as stream:
        if before.st_size > max_bytes:
            raise LimitError(f"{path}: expected at most {max_bytes} bytes (data.max_bytes), found {before.st_size}")
        data = stream.read(max_bytes + 1)
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise InputError(f"{path}: expected a file at rest, found one that changed while it was read")
    if not data:
        raise InputError(f"{path}: expected data, found an empty file")
    return data


# --- images ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Images:
    x: NDArray[Any]
    y: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> "_Images":
        return _Images(self.x[rows], self.y[rows])


def _write_images(
    config: SnapshotConfig, files: list[_File], out: Path, review: Artifact[Review] | None
) -> Artifact[Snapshot]:
    train, test = _read_images(config.data, files)
    name = files[0].path
    if test is not None and train.x.shape[1:] != test.x.shape[1:]:
        raise InputError(
            f"{files[-1].path}: expected held-out images {train.x.shape[1:]}, found {test.x.shape[1:]} (C, H, W)"
        )
    classes = class_names(train.y, config.data.classes, name=name)
    if len(classes) < 2:
        raise InputError(f"{name}: expected at least two classes, found {quoted(classes)} only")
    _enough_rows(train.y, classes, name)
    if test is None:
        held = holdout(train.y, config.data.holdout, config.data.split_seed)
        train, test = train.take(~held), train.take(held)
    class_names(test.y, classes, name=f"{files[-1].path} (held-out rows)")
    train, test, record = _images_kept(train, test, classes, review)
    _rows_left(train.y, test.y, classes, review)
    lower, upper = _value_range(config.data, files[0])
    document = Snapshot(
        **_common(config, files, classes, train.y, test.y),
        **record,
        shape=train.x.shape[1:],
        lower=lower,
        upper=upper,
    )
    with write_artifact(out) as work:
        for split, part in (("train", train), ("test", test)):
            # numpy writes the members without compression and with a constant date: equal arrays, equal bytes.
            with (work / f"{split}.npz").open("wb") as stream:
                np.savez(stream, x=part.x, y=part.y)
        sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


def _images_kept(
    train: _Images, test: _Images, classes: tuple[str, ...], review: Artifact[Review] | None
) -> tuple[_Images, _Images, dict[str, Any]]:
    if review is None:
        return train, test, {}
    digests = [image_digests(part.x, [classes[index] for index in part.y]) for part in (train, test)]
    kept = keep(digests[0], digests[1], review.document.entries)
    return train.take(kept.train), test.take(kept.test), _record(review, kept)


def _read_images(config: DataConfig, files: list[_File]) -> tuple[_Images, _Images | None]:
    first = files[0]
    if first.format is None:
        if first.path != "sklearn:digits":
            raise InputError(f"{first.path}: expected images for an image workload, found a table")
        return _Images(*bundled.digits(first.data)), None
    if any(file.format != "npz" for file in files):
        raise InputError(f"{first.path}: expected an NPZ file for an image workload, found {first.format}")
    if len(files) == 2:
        return _one_part(config, files[0]), _one_part(config, files[1])
    if "x" in keys_of(first.data, name=first.path):
        return _one_part(config, first), None
    arrays = read_npz(first.data, _SPLIT_KEYS, name=first.path, max_bytes=config.max_bytes)
    return _named(first.path, arrays, "_train"), _named(first.path, arrays, "_test")


def _one_part(config: DataConfig, file: _File) -> _Images:
    suffix = "_train" if "x_train" in keys_of(file.data, name=file.path) else ""
    arrays = read_npz(file.data, (f"x{suffix}", f"y{suffix}"), name=file.path, max_bytes=config.max_bytes)
    return _named(file.path, arrays, suffix)


def _named(path: str, arrays: dict[str, NDArray[Any]], suffix: str) -> _Images:
    x = images(arrays[f"x{suffix}"], name=f"{path}[x{suffix}]")
    return _Images(x, labels(arrays[f"y{suffix}"], len(x), name=f"{path}[y{suffix}]"))


def _value_range(config: DataConfig, file: _File) -> tuple[float, float]:
    lower, upper = config.value_range
    if file.format is None and config.value_range == (0.0, 1.0):
        return bundled.DIGITS_RANGE
    if not lower < upper:
        raise InputError(f"{file.path}: expected data.range with the lower value first, found [{lower}, {upper}]")
    return lower, upper


# --- tables and messages --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    columns: dict[str, NDArray[Any]]
    labels: NDArray[np.object_]

    def take(self, rows: NDArray[np.bool_]) -> "_Rows":
        return _Rows({name: values[rows] for name, values in self.columns.items()}, self.labels[rows])


def _write_table(
    config: SnapshotConfig, files: list[_File], out: Path, review: Artifact[Review] | None
) -> Artifact[Snapshot]:
    parts = [_read_part(config.data, file) for file in files]
    _same_columns(parts)
    found = [class_labels(pick(part, config.data.label, "label"), _label(part, config.data)) for part in parts]
    classes = find_classes(found[0], config.data.classes, _label(parts[0], config.data))
    if len(found) == 2:
        known_classes(found[1], classes, _label(parts[1], config.data), source="the classes of the training rows")
    y = [_indices(one, classes) for one in found]
    _enough_rows(y[0], classes, parts[0].name)
    columns, values = _columns(config, parts)
    rows = [_Rows(cells, one) for cells, one in zip(values, found, strict=True)]
    if len(rows) == 1:
        held = holdout(y[0], config.data.holdout, config.data.split_seed)
        rows = [rows[0].take(~held), rows[0].take(held)]
    rows, record = _rows_kept(rows, review)
    y = [_indices(part.labels, classes) for part in rows]
    _rows_left(y[0], y[1], classes, review)
    if len(parts) == 1 or review is not None:
        columns = tuple(_training_categories(column, rows[0]) for column in columns)
    shape = (config.data.length if modality_of(config.modality).one_column else len(columns),)
    document = Snapshot(**_common(config, files, classes, y[0], y[1]), **record, columns=columns, shape=shape)
    return _save_table(document, rows, out)


def _rows_kept(rows: list[_Rows], review: Artifact[Review] | None) -> tuple[list[_Rows], dict[str, Any]]:
    if review is None:
        return rows, {}
    cells = [{name: values.tolist() for name, values in part.columns.items()} for part in rows]
    digests = [table_digests(one, list(part.labels)) for one, part in zip(cells, rows, strict=True)]
    kept = keep(digests[0], digests[1], review.document.entries)
    return [rows[0].take(kept.train), rows[1].take(kept.test)], _record(review, kept)


def _save_table(document: Snapshot, rows: list[_Rows], out: Path) -> Artifact[Snapshot]:
    import pyarrow.parquet as pq

    with write_artifact(out) as work:
        for split, part in zip(("train", "test"), rows, strict=True):
            pq.write_table(_arrow(document, part), work / f"{split}.parquet", compression="zstd")
        sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


def _arrow(document: Snapshot, rows: _Rows) -> "pa.Table":
    import pyarrow as pa

    cells = {column.name: rows.columns[column.name] for column in document.columns} | {document.label: rows.labels}
    arrays = [pa.array(values, pa.float64() if values.dtype.kind == "f" else pa.string()) for values in cells.values()]
    return pa.Table.from_arrays(arrays, names=list(cells))


def _read_part(config: DataConfig, file: _File) -> Part:
    if file.format is None:
        if file.path != "sklearn:breast-cancer":
            raise InputError(f"{file.path}: expected a table for this workload, found images")
        return Part(file.path, bundled.breast_cancer(file.data, config.label))
    if file.format == "parquet":
        return Part(file.path, read_parquet(file.data, name=file.path, max_bytes=config.max_bytes))
    if file.format == "npz":
        raise InputError(f"{file.path}: expected CSV, TSV or Parquet for a table or messages, found NPZ")
    return Part(file.path, read_delimited(file.data, file.format, name=file.path, columns=config.columns))


def _same_columns(parts: list[Part]) -> None:
    first, *others = parts
    for part in others:
        missing, extra = sorted(set(first.cells) - set(part.cells)), sorted(set(part.cells) - set(first.cells))
        if missing or extra:
            raise InputError(
                f"{part.name}: expected the columns of {first.name}, found "
                + " and ".join(
                    [f"{quoted(missing)} missing"] * bool(missing) + [f"{quoted(extra)} added"] * bool(extra)
                )
            )


def _columns(config: SnapshotConfig, parts: list[Part]) -> tuple[tuple[Column, ...], list[dict[str, NDArray[Any]]]]:
    """The columns that the model sees, and their values per part."""
    data = config.data
    if modality_of(config.modality).one_column:
        assert data.text is not None, "a text workload names its text column"
        messages = [{data.text: _messages(pick(part, data.text, "text"))} for part in parts]
        return (Column(name=data.text, kind="text", immutable=data.text in data.immutable),), messages
    for named in (*data.drop, *data.immutable):
        pick(parts[0], named, "data")
    names = [column for column in parts[0].cells if column != data.label and column not in data.drop]
    if not names:
        raise InputError(f"{parts[0].name}: expected columns beside the label {data.label!r}, found none")
    columns: list[Column] = []
    values: list[dict[str, NDArray[Any]]] = [{} for _ in parts]
    for name in names:
        column, cells = describe(parts, name, immutable=name in data.immutable)
        columns.append(column)
        for target, one in zip(values, cells, strict=True):
            target[name] = one
    return tuple(columns), values


def _training_categories(column: Column, rows: _Rows) -> Column:
    if column.kind != "category":
        return column
    return column.model_copy(update={"categories": tuple(sorted(set(rows.columns[column.name])))})


def _messages(cells: NDArray[Any]) -> NDArray[np.object_]:
    return np.array(["" if value is None else str(value) for value in cells], dtype=object)


def _label(part: Part, config: DataConfig) -> str:
    return f"{part.name}: label {config.label!r}"


def _indices(found: NDArray[np.object_], classes: tuple[str, ...]) -> NDArray[np.int64]:
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[name] for name in found], dtype=np.int64)


_Writer = Callable[[SnapshotConfig, list[_File], Path, Artifact[Review] | None], Artifact[Snapshot]]
_WRITERS: dict[Storage, _Writer] = {"npz": _write_images, "parquet": _write_table}

# --- both -----------------------------------------------------------------------------------------------------------


def _enough_rows(y: NDArray[np.int64], classes: tuple[str, ...], name: str) -> None:
    counts = np.bincount(y, minlength=len(classes))
    few = [f"{classes[i]!r} ({counts[i]})" for i in np.flatnonzero(counts < _MIN_ROWS)]
    if few:
        raise InputError(
            f"{name}: expected at least {_MIN_ROWS} rows of each class, found fewer of {', '.join(few[:5])}"
        )


def _rows_left(
    train: NDArray[np.int64], test: NDArray[np.int64], classes: tuple[str, ...], review: Artifact[Review] | None
) -> None:
    if review is None:
        return
    _enough_rows(train, classes, f"{review.folder}: rows that the review leaves")
    if len(test) == 0:
        raise InputError(f"{review.folder}: expected held-out rows after the review, found none")


def _record(review: Artifact[Review], kept: Kept) -> dict[str, Any]:
    return {"inputs": {"review": review.digest}, "review": kept.record}


def _common(
    config: SnapshotConfig, files: list[_File], classes: tuple[str, ...], train: NDArray[Any], test: NDArray[Any]
) -> dict[str, Any]:
    pins = tuple(file.pin for file in files)
    return {
        "name": config.name,
        "modality": config.modality,
        "root": merkle.root(pins),
        "sources": pins,
        "label": config.data.label,
        "classes": classes,
        "train_rows": len(train),
        "test_rows": len(test),
        "train_per_class": tuple(np.bincount(train, minlength=len(classes)).tolist()),
        "test_per_class": tuple(np.bincount(test, minlength=len(classes)).tolist()),
    }
