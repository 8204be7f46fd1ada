"""The arrays that a network takes, from a snapshot's rows; each modality reads its own (`holdfast.modality`)."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.contract import in_order_of
from holdfast.artifacts.documents import Column, InputSpec, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.protocol import SplitName

if TYPE_CHECKING:
    import pandas as pd
    import torch


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

    def tensors(self, device: "torch.device | str") -> "tuple[torch.Tensor, torch.Tensor]":
        """x and y on that device."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(self.x)).to(device), torch.from_numpy(self.y).to(device)


def read_spec(
    snapshot: Artifact[Snapshot], champion: InputSpec | None = None, *, new_categories: bool = False
) -> InputSpec:
    """What a network for this data takes; the limits and scales of features come from the training rows.

    Columns that a `champion` reads keep the places and the categories that they have in its input, so that a client's
    row means the same to both; the order of columns in a delivery means nothing. Values that the champion does not
    know are none of its categories, or (`new_categories`) come after them.
    """
    columns = snapshot.document.columns
    if champion is not None:
        columns = in_order_of(champion.columns, columns, new_categories=new_categories)
    return spec_of(snapshot, columns)


def spec_of(snapshot: Artifact[Snapshot], columns: tuple[Column, ...]) -> InputSpec:
    """What a network takes that reads these columns of a snapshot, in this order."""
    document = snapshot.document.model_copy(update={"columns": columns})
    return modality_of(document.modality).spec(replace(snapshot, document=document))


def read_split(snapshot: Artifact[Snapshot], split: SplitName, spec: InputSpec) -> Arrays:
    """The rows of `split` in file order; row i of the file is row i of the arrays."""
    document = snapshot.document
    if document.modality != spec.modality:
        raise InputError(f"{snapshot.folder}: expected {spec.modality} data, found {document.modality}")
    return Arrays(*modality_of(document.modality).read(snapshot, split, spec))


def encode(raw: "pd.DataFrame | Sequence[str] | NDArray[np.generic]", spec: InputSpec) -> NDArray[np.generic]:
    """Network inputs from delivered rows: a DataFrame (tabular), strings (text), images in delivered units.

    Image values beyond the delivered limits are clipped to them; a category that training never saw is all zeros.

    Raises:
        InputError: a column is missing, a value is not a finite number, or the images have another shape.
    """
    return modality_of(spec.modality).encode(raw, spec)


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
