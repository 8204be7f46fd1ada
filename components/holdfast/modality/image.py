"""Images: float32[N, C, H, W] in [0, 1], where 0 and 1 are the delivery's own limits.

Their table view is the means of at most 8 x 8 cells per channel plus brightness, contrast, lowest and highest value.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec, Modality, Norm, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError
from holdfast.modality.protocol import (
    Certification,
    InputModality,
    ScanMethod,
    SplitName,
    Squeezing,
    Starter,
    Storage,
    TriggerSearch,
)

if TYPE_CHECKING:
    import pandas as pd

CELLS = 8
SLACK = 1e-4
"""Share of an image's value range for rounding: a schema's bounds are float32."""
_BLOCK = 4096


class ImageInput(InputModality):
    """Pictures of one size, in files of arrays."""

    name: ClassVar[Modality] = "image"
    unit: ClassVar[str] = "input units [0, 1]"
    starter: ClassVar[Starter] = Starter(
        data="  # range: [0, 255]             # the values that mean black and white; left out: found\n",
        threat="  norm: linf\n  epsilon: 8/255                # input units: black is 0, white is 1\n",
        certify="  noise: 0.25                   # sigma, input units\n",
        network="cnn",
    )
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    networks: ClassVar[tuple[str, ...]] = ("cnn", "mlp")
    storage: ClassVar[Storage] = "npz"
    scan: ClassVar[ScanMethod] = "trigger-transfer"
    trigger_search: ClassVar[TriggerSearch] = "neural-cleanse"
    squeezing: ClassVar[Squeezing] = "pixels"
    trigger_headroom: ClassVar[int] = 4
    certification: ClassVar[Certification] = "randomized-smoothing"
    corrupted: ClassVar[bool] = True

    def spec(self, snapshot: Artifact[Snapshot]) -> InputSpec:
        """The shape of one image, and the delivered values that become 0 and 1."""
        document = snapshot.document
        return InputSpec(
            modality=self.name,
            shape=document.shape,
            dtype="float32",
            raw_lower=document.lower,
            raw_upper=document.upper,
        )

    def encode(self, raw: Any, spec: InputSpec) -> NDArray[np.float32]:
        """Images in input units; values beyond the delivered limits are clipped to them."""
        pixels = np.asarray(raw)
        if pixels.shape[1:] != spec.shape:
            raise InputError(f"images: expected shape (N, {', '.join(map(str, spec.shape))}), found {pixels.shape}")
        scaled = np.empty(pixels.shape, dtype=np.float32)
        for start in range(0, len(pixels), _BLOCK):
            scaled[start : start + _BLOCK] = _scaled(pixels[start : start + _BLOCK], spec)
        return scaled

    def read(
        self, snapshot: Artifact[Snapshot], split: SplitName, spec: InputSpec
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Images and their classes."""
        x, y = _arrays(snapshot, split)
        return self.encode(x, spec), y.astype(np.int64)

    def table(self, snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
        """Cells keep the delivery's own units."""
        import pandas as pd

        x, y = _arrays(snapshot, split)
        table = pd.DataFrame(image_columns(x))
        table[snapshot.document.label] = np.asarray(snapshot.document.classes, dtype=object)[y]
        return table

    def served(self, given: Any, spec: InputSpec) -> Any:
        """The array itself."""
        if not isinstance(given, np.ndarray):
            raise InputError(f"input: expected images as an array, found {type(given).__name__}")
        return given

    def example(self, snapshot: Artifact[Snapshot], spec: InputSpec, rows: int) -> Any:
        """Images in delivered units."""
        return _arrays(snapshot, "test")[0][:rows]

    def mlflow_schema(self, spec: InputSpec, example: Any) -> Any:
        """One tensor."""
        from mlflow.types.schema import Schema, TensorSpec

        return Schema([TensorSpec(example.dtype, (-1, *spec.shape))])

    def known_range(self, column: str, snapshot: Snapshot) -> tuple[float, float] | None:
        """What the values that mean 0 and 1 leave to brightness, contrast and cells."""
        lower, upper = snapshot.lower, snapshot.upper
        slack = SLACK * (upper - lower)
        return (0.0, (upper - lower) / 2 + slack) if column == "contrast" else (lower - slack, upper + slack)

    def value_range(self, spec: InputSpec) -> tuple[float, float]:
        """Black and white."""
        return spec.lower, spec.upper


def image_columns(x: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    """Brightness, contrast, lowest and highest value, and cell means of images `number[N, C, H, W]`, in their units."""
    # In blocks: sixty thousand images in float64 at once are 400 MB.
    blocks = [_block_columns(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _arrays(snapshot: Artifact[Snapshot], split: SplitName) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    with np.load(snapshot.open(f"{split}.npz"), allow_pickle=False) as arrays:
        return arrays["x"], arrays["y"]


def _scaled(raw: NDArray[np.generic], spec: InputSpec) -> NDArray[np.float64]:
    # float64, because float32 would round large delivered integers before they are scaled.
    x: NDArray[np.float64] = raw.astype(np.float64)
    if not np.isfinite(x).all():
        raise InputError("images: expected finite numbers, found NaN or infinity")
    return np.clip((x - spec.raw_lower) / (spec.raw_upper - spec.raw_lower), 0, 1)


def _block_columns(x: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
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
    """The positions where the parts of `numpy.array_split` begin."""
    return [int(part[0]) for part in np.array_split(np.arange(length), min(CELLS, length))]
