"""Reads a delivery once, splits it, pins it: fetch, read, name and type, split, fill, review, write."""

from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.artifacts.documents import Review, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot import merkle
from holdfast.data.snapshot.contract import TypedDelivery, type_images, type_table
from holdfast.data.snapshot.delivered import DeliveredFile
from holdfast.data.snapshot.fetch import fetch
from holdfast.data.snapshot.fill import fill_missing
from holdfast.data.snapshot.leakage import leaked_rows
from holdfast.data.snapshot.listing import quoted
from holdfast.data.snapshot.read import read_images, read_tables
from holdfast.data.snapshot.reviewed import SnapshotParts, leave_out
from holdfast.data.snapshot.split import split
from holdfast.data.snapshot.write import per_class, units_of, write
from holdfast.modality import modality_of
from holdfast.modality.protocol import Storage
from holdfast.progress import say
from holdfast.quarantine.reviews import find_review
from holdfast.workload.schema import SnapshotConfig


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
    decided = None if named is None else find_review(named)
    files = fetch(config.data, data)
    typed = _TYPED[modality_of(config.modality).storage](files, config)
    train, test = split(typed.parts, config.data, typed.classes)
    typed, train, test = fill_missing(typed, train, test)
    parts = leave_out(train, test, typed, decided)
    _name_uninformative(typed)
    return write(_document(config, files, typed, parts, decided), parts, out)


def _name_uninformative(typed: TypedDelivery) -> None:
    if typed.left_out:
        say(f"snapshot: left out, since nothing can be learned from them: {quoted(typed.left_out)}")
    if typed.constant:
        say(f"snapshot: one value in every row: {quoted(typed.constant)} (data.constants: drop leaves them out)")


def _images(files: Sequence[DeliveredFile], config: SnapshotConfig) -> TypedDelivery:
    return type_images(read_images(files, config.data), config)


def _table(files: Sequence[DeliveredFile], config: SnapshotConfig) -> TypedDelivery:
    return type_table(read_tables(files, config.data), config)


def _document(
    config: SnapshotConfig,
    files: Sequence[DeliveredFile],
    typed: TypedDelivery,
    parts: SnapshotParts,
    review: Artifact[Review] | None,
) -> Snapshot:
    read_as = typed.read_as or (None,) * len(files)
    pins = tuple(file.pin_as(how) for file, how in zip(files, read_as, strict=True))
    lower, upper = typed.pixel_range
    return Snapshot(
        inputs={} if review is None else {review.document.kind: review.digest},
        name=config.name,
        modality=config.modality,
        root=merkle.root(pins),
        sources=pins,
        label=config.data.label,
        classes=typed.classes,
        train_rows=len(parts.train.y),
        test_rows=len(parts.test.y),
        train_per_class=per_class(parts.train.y, typed.classes),
        test_per_class=per_class(parts.test.y, typed.classes),
        columns=parts.train.training_columns(typed.columns),
        shape=typed.shape,
        lower=lower,
        upper=upper,
        review=parts.review,
        undecided=parts.undecided,
        places=units_of(parts),
        leaked_rows=leaked_rows(parts.train, parts.test),
        left_out=typed.left_out,
        constant=typed.constant,
    )


_TYPED: dict[Storage, Callable[[Sequence[DeliveredFile], SnapshotConfig], TypedDelivery]] = {
    "npz": _images,
    "parquet": _table,
}
