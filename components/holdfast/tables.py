"""The table view of a snapshot: what schema, drift and reports look at, for every modality.

Tables are seen as they are. Images become the means of at most 8 x 8 cells per channel plus brightness, contrast,
lowest and highest value; messages become counts and shares of kinds of characters. The label stands last, as a class
name.
"""

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact

if TYPE_CHECKING:
    import pandas as pd

CELLS = 8
_BLOCK = 4096
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
    harden_pyarrow()
    rows = pd.read_parquet(snapshot.open(f"{split}.parquet"))
    if document.modality == "tabular":
        return rows
    text = next(column.name for column in document.columns if column.kind == "text")
    table = pd.DataFrame(text_columns([str(message) for message in rows[text]]))
    table[document.label] = rows[document.label].to_numpy()
    return table


def harden_pyarrow() -> None:
    """Afterwards no Parquet file can make pyarrow unpickle (CVE-2023-47248: TFDV pins a pyarrow that would)."""
    if find_spec("pyarrow_hotfix") is not None:
        import pyarrow_hotfix  # noqa: F401


def image_columns(x: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    """Brightness, contrast, lowest and highest value, and cell means of images `number[N, C, H, W]`, in their units."""
    # In blocks: sixty thousand images in float64 at once are 400 MB.
    blocks = [_image_block(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _image_block(x: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    pixels = x.astype(np.float64)
    flat = pixels.reshape(len(pixels), -1)
    view = {
        "brightness": flat.mean(axis=1),
        "contrast": flat.std(axis=1),
        "lowest": flat.min(axis=1),
        "highest": flat.max(axis=1),
    }
    cells = _cell_means(pixels)
    for channel, row, column in np.ndindex(*cells.shape[1:]):
        view[f"cell_{channel}_{row}_{column}"] = cells[:, channel, row, column]
    return view


def _cell_means(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[N, C, min(H, 8), min(W, 8)]: the means of nearly equal cells."""
    for axis in (2, 3):
        starts = _starts(pixels.shape[axis])
        sizes = np.diff([*starts, pixels.shape[axis]])
        sums = np.add.reduceat(pixels, starts, axis=axis)
        pixels = sums / sizes.reshape((-1, 1) if axis == 2 else (-1,))
    return pixels


def _starts(length: int) -> list[int]:
    """Where the parts of `numpy.array_split` begin."""
    return [int(part[0]) for part in np.array_split(np.arange(length), min(CELLS, length))]


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
