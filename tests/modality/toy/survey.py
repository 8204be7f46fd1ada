"""A modality that the product does not have: answers from 1 to 5, seen by the network as numbers from 0 to 1."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec, Modality, Norm, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError
from holdfast.modality.frames import class_indices, read_frame
from holdfast.modality.protocol import (
    Certification,
    InputModality,
    ScanMethod,
    SplitName,
    Starter,
    Storage,
    TriggerSearch,
)

if TYPE_CHECKING:
    import pandas as pd


class Survey(InputModality):
    name: ClassVar[Modality] = "survey"  # type: ignore[assignment]
    unit: ClassVar[str] = "points"
    starter: ClassVar[Starter] = Starter(
        data="  label: {label}\n", threat="  norm: l2\n  epsilon: 1/4\n", certify="  noise: 0.25\n", network="mlp"
    )
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    networks: ClassVar[tuple[str, ...]] = ("mlp",)
    storage: ClassVar[Storage] = "parquet"
    natural: ClassVar[bool] = True
    scan: ClassVar[ScanMethod] = "shared-values"
    trigger_search: ClassVar[TriggerSearch] = "neural-cleanse"
    trigger_headroom: ClassVar[int] = 4
    certification: ClassVar[Certification] = "randomized-smoothing"

    def spec(self, snapshot: Artifact[Snapshot]) -> InputSpec:
        columns = snapshot.document.columns
        return InputSpec(modality=self.name, shape=(len(columns),), dtype="float32", columns=columns)

    def encode(self, raw: Any, spec: InputSpec) -> NDArray[np.generic]:
        answers = raw[[column.name for column in spec.columns]].to_numpy(np.float64)
        if not ((answers >= 1) & (answers <= 5)).all():
            raise InputError("survey: expected answers from 1 to 5")
        scaled: NDArray[np.generic] = ((answers - 1) / 4).astype(np.float32)
        return scaled

    def read(
        self, snapshot: Artifact[Snapshot], split: SplitName, spec: InputSpec
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        frame = read_frame(snapshot, split)
        return self.encode(frame, spec), class_indices(frame, snapshot)

    def table(self, snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
        return read_frame(snapshot, split)

    def served(self, given: Any, spec: InputSpec) -> Any:
        return given

    def example(self, snapshot: Artifact[Snapshot], spec: InputSpec, rows: int) -> Any:
        return read_frame(snapshot, "test")[[column.name for column in spec.columns]].head(rows)

    def mlflow_schema(self, spec: InputSpec, example: Any) -> Any:
        from mlflow.types.schema import ColSpec, Schema

        return Schema([ColSpec("double", column.name) for column in spec.columns])

    def known_range(self, column: str, snapshot: Snapshot) -> tuple[float, float] | None:
        return 1.0, 5.0

    def value_range(self, spec: InputSpec) -> tuple[float, float] | None:
        return spec.lower, spec.upper
