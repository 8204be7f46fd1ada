"""What a modality answers: one subclass in a module of its own, and one row in `holdfast.modality`.

Facts come first: they choose between methods, storage and sections of a workload that exist already, so that a modality
which needs nothing new touches no other room. Then come the ways from delivered rows to what a network takes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec, Modality, Norm, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact

if TYPE_CHECKING:
    import pandas as pd

    from holdfast.modality.ball import Ball

SplitName = Literal["train", "test"]
Storage = Literal["npz", "parquet"]
ScanMethod = Literal["trigger-transfer", "shared-values", "shared-ngrams"]
TriggerSearch = Literal["neural-cleanse", "n-gram-insertion"]
Certification = Literal["randomized-smoothing", "randomized-ablation"]
Squeezing = Literal["pixels", "features", "words"]


FEW_ROWS = 2000


@dataclass(frozen=True)
class Starter:
    """What `holdfast init` writes into a workload: what differs in its sections, and a built-in network."""

    data: str
    threat: str
    certify: str
    network: str
    train: str = "  epochs: 20\n"
    """Keys of the recipe."""
    train_many: str = ""
    """The same for more than `FEW_ROWS` rows, where those would take long; empty: no others."""


class InputModality(ABC):
    """One kind of input."""

    name: ClassVar[Modality]
    unit: ClassVar[str]
    """The unit of epsilon and of radii."""
    starter: ClassVar[Starter]

    norms: ClassVar[tuple[Norm, ...]]
    """The norms of the attackers that it can have."""
    threat_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of a workload's section `threat` that no other modality has."""
    recipes: ClassVar[tuple[str, ...] | Literal["all"]] = "all"
    """Recipes of adversarial training that fit."""
    fits_art: ClassVar[bool] = True
    """Whether the Adversarial Robustness Toolbox can attack it."""
    networks: ClassVar[tuple[str, ...]]
    """Built-in networks that take it."""

    storage: ClassVar[Storage]
    """The files of its rows, in a snapshot and in quarantine."""
    one_column: ClassVar[bool] = False
    """Whether the model sees one column of the delivery, which the workload names in `data.text`."""
    natural: ClassVar[bool] = False
    """Whether no number of its table view is below 0."""

    scan: ClassVar[ScanMethod]
    """How planted rows are searched for: `holdfast.model.scan.combine`."""
    trigger_search: ClassVar[TriggerSearch]
    """How a trigger is searched for in a model: `holdfast.model.backdoor.step`."""
    squeezing: ClassVar[Squeezing]
    """What detectors of single inputs make simpler: `holdfast.model.detect.step`."""
    trigger_headroom: ClassVar[int] = 1
    """Inversion allows itself this fraction of the misses that the rule allows: held-out rows cost some success."""
    certification: ClassVar[Certification]
    """What sampling proves: `holdfast.model.certify.step`."""
    corrupted: ClassVar[bool] = False
    """Whether the corruptions of cameras and of transmission mean something: `holdfast.model.attack.corruptions`."""

    @abstractmethod
    def spec(self, snapshot: Artifact[Snapshot]) -> InputSpec:
        """What a network for this data takes; what is learned of features comes from the training rows."""

    @abstractmethod
    def encode(self, raw: Any, spec: InputSpec) -> NDArray[np.generic]:
        """Network inputs `dtype[N, *shape]` from delivered rows.

        Raises:
            InputError: rows that are not of this modality, or not what `spec` was made of.
        """

    @abstractmethod
    def read(
        self, snapshot: Artifact[Snapshot], split: SplitName, spec: InputSpec
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Network inputs and classes int64[N] of a split, in file order."""

    @abstractmethod
    def table(self, snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
        """The table view of a split: what schema, drift and reports look at; the label is the last column."""

    def table_blocks(self, snapshot: Artifact[Snapshot], split: SplitName) -> Iterator["pd.DataFrame"]:
        """The table view of a split, some rows at a time, in the order of the file."""
        yield self.table(snapshot, split)

    def sample(self, snapshot: Artifact[Snapshot], split: SplitName, rows: NDArray[np.int64]) -> "pd.DataFrame":
        """Some rows of the table view, in the order of the file; `rows` are ascending."""
        return self.table(snapshot, split).iloc[rows]

    @abstractmethod
    def served(self, given: Any, spec: InputSpec) -> Any:
        """What `encode` takes, from the kinds of input that MLflow hands over.

        Raises:
            InputError: a kind of input that does not fit.
        """

    @abstractmethod
    def example(self, snapshot: Artifact[Snapshot], spec: InputSpec, rows: int) -> Any:
        """The first held-out rows as they were delivered."""

    @abstractmethod
    def mlflow_schema(self, spec: InputSpec, example: Any) -> Any:
        """What MLflow shows of an input and enforces; imports MLflow."""

    def known_range(self, column: str, snapshot: Snapshot) -> tuple[float, float] | None:
        """What a column of the table view can be, where that is known without looking at rows."""
        return None

    def value_range(self, spec: InputSpec) -> tuple[float, float] | None:
        """The lowest and the highest value of network inputs; None where only the rows are limited."""
        return None

    def ball(self, threat: ThreatModel, spec: InputSpec, device: str) -> "Ball":
        """The perturbation set of a threat model around inputs of `spec`; imports torch.

        Raises:
            WorkloadError: the threat model asks of the data what it does not have.
        """
        import torch

        from holdfast.modality.norms import ball_class

        def number(value: float) -> torch.Tensor:
            return torch.tensor(value, dtype=torch.float32, device=device)

        return ball_class(threat.norm)(
            epsilon=float(threat.epsilon),
            lower=number(spec.lower),
            upper=number(spec.upper),
            scale=number(1.0),
            mutable=number(1.0),
        )
