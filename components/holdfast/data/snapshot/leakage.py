"""Held-out rows that the model has seen in training: what it scores on them is memory."""

import numpy as np

from holdfast.data.snapshot.rows import DeliveredRows


def leaked_rows(train: DeliveredRows, test: DeliveredRows) -> int:
    """How many held-out rows have the values of a training row; labels are not compared."""
    return int(np.isin(test.fingerprints(), train.fingerprints()).sum())
