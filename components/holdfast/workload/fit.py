"""Whether a workload fits the data that it names: what train and attack refuse, known once rows are read."""

from collections.abc import Collection

from holdfast.artifacts.documents import Snapshot
from holdfast.errors import InputError, WorkloadError
from holdfast.modality.tabular import check_rules
from holdfast.workload.schema import Workload

_ROWS_PER_CLASS = 2


def check_fit(workload: Workload, snapshot: Snapshot) -> None:
    """The workload's classes, columns and rows are those of the snapshot.

    Raises:
        WorkloadError: it names a class or a column that is not there, or the wrong kind of column.
        InputError: too few training rows.
    """
    weights = workload.train.class_weights
    if not isinstance(weights, str):
        known_classes(weights, snapshot.classes)
    if workload.decision is not None:
        workload.decision.index_in(snapshot.classes)
    columns = {one.name: (one.kind == "category", not one.immutable) for one in snapshot.columns}
    check_rules(workload.threat_model, columns)
    enough_training_rows(snapshot.train_rows, len(snapshot.classes))


def known_classes(asked: Collection[str], classes: Collection[str]) -> None:
    """Every class that `train.class_weights` weighs is one of the data's.

    Raises:
        WorkloadError: otherwise.
    """
    unknown = sorted(set(asked) - set(classes))
    if unknown:
        raise WorkloadError(f"train.class_weights: expected classes of {list(classes)}, found {unknown[0]!r}")


def enough_training_rows(rows: int, classes: int) -> None:
    """Training has two rows per class.

    Raises:
        InputError: otherwise.
    """
    if rows < _ROWS_PER_CLASS * classes:
        raise InputError(f"train: expected at least {_ROWS_PER_CLASS * classes} training rows, found {rows}")
