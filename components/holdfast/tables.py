"""The table view of a snapshot: what schema, drift and reports look at, for every modality.

Tables are seen as they are. Images become the means of at most 8 x 8 cells per channel plus brightness and contrast;
messages become counts and shares of kinds of characters. The label stands last, as a class name.
"""

import re
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact

if TYPE_CHECKING:
    import pandas as pd

CELLS = 8
Split = Literal["train", "test"]


def read_table(snapshot: Artifact[Snapshot], split: Split) -> "pd.DataFrame":
    """The rows of `split` in the table view; row i is row i of the snapshot's file.

    Image cells keep the delivery's own units.
    """
    import pandas as pd

    document = snapshot.document
    if document.modality == "image":
        with np.load(snapshot.open(f"{split}.npz"), allow_pickle=False) as arrays:
            table = pd.DataFrame(image_columns(arrays["x"]))
            table[document.label] = np.asarray(document.classes, dtype=object)[arrays["y"]]
        return table
    rows = pd.read_parquet(snapshot.open(f"{split}.parquet"))
    if document.modality == "tabular":
        return rows
    text = next(column.name for column in document.columns if column.kind == "text")
    table = pd.DataFrame(text_columns([str(message) for message in rows[text]]))
    table[document.label] = rows[document.label].to_numpy()
    return table


def image_columns(x: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    """Cell means, brightness and contrast of images `number[N, C, H, W]`, in their own units."""
    n, channels, height, width = x.shape
    rows = np.array_split(np.arange(height), min(CELLS, height))
    columns = np.array_split(np.arange(width), min(CELLS, width))
    pixels = x.astype(np.float64)
    view = {"brightness": pixels.mean(axis=(1, 2, 3)), "contrast": pixels.std(axis=(1, 2, 3))}
    for channel in range(channels):
        for i, row in enumerate(rows):
            band = pixels[:, channel, row[0] : row[-1] + 1]
            for j, column in enumerate(columns):
                view[f"cell_{channel}_{i}_{j}"] = band[:, :, column[0] : column[-1] + 1].mean(axis=(1, 2))
    return view


def text_columns(messages: list[str]) -> dict[str, NDArray[np.float64]]:
    """Length, words and shares of digits, capitals, punctuation and non-ASCII characters of messages."""
    length = np.array([len(m) for m in messages], dtype=np.float64)
    safe = np.maximum(length, 1)

    def share(pattern: str) -> NDArray[np.float64]:
        found = re.compile(pattern)
        return np.array([len(found.findall(m)) for m in messages], dtype=np.float64) / safe

    return {
        "length": length,
        "words": np.array([len(m.split()) for m in messages], dtype=np.float64),
        "digits": share(r"[0-9]"),
        "capitals": share(r"[A-Z]"),
        "punctuation": share(r"[^\w\s]"),
        "non_ascii": share(r"[^\x00-\x7f]"),
        "links": share(r"https?://|www\."),
    }
