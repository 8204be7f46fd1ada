"""Where each row is in the delivered file, on its way from the readers to the snapshot."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.listing import Lines

PlaceUnit = Literal["line", "row"]


@dataclass(frozen=True)
class RowPlaces:
    """int64[rows]: the line on which a row begins, counted from 1, or its number, from 0, in a file without lines."""

    unit: PlaceUnit
    at: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """Those of the rows where the mask is true, in order."""
        return type(self)(self.unit, self.at[rows])

    def stored(self) -> NDArray[np.generic]:
        """The places as a file holds them, in 32 bits where they fit."""
        return self.at.astype(np.int32) if len(self.at) == 0 or self.at.max() < 2**31 else self.at


def places_of(lines: Lines, rows: int) -> RowPlaces:
    """The places of all rows of a file."""
    return RowPlaces("row", np.arange(rows)) if lines is None else RowPlaces("line", lines)
