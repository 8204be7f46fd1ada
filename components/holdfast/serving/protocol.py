"""The Open Inference Protocol (V2) as our servers speak it: a request with one row, and the answer to it.

https://github.com/open-inference/open-inference-protocol. Importing this loads nothing heavy.
"""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DATATYPES = {"float32": "FP32", "int64": "INT64"}
"""How the protocol names the types of network inputs."""
_ROUNDING = 1e-6
"""How far above 1 a probability may lie that was summed and printed as float32."""


def body(row: "NDArray[np.generic]") -> bytes:
    """A request for one row."""
    datatype = DATATYPES[str(row.dtype)]
    # Nine digits give back the very same float32 with half the bytes of a double.
    values = [float(f"{value:.9g}") for value in row.ravel().tolist()] if datatype == "FP32" else row.ravel().tolist()
    tensor = {"name": "input", "datatype": datatype, "shape": [1, *row.shape], "data": values}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its label, and the version that gave it."""

    label: int
    version: str | None


def read_reply(data: bytes, classes: int) -> Reply:
    """The answer to one row, after every number in it was looked at.

    Raises:
        ValueError: the answer does not have the shape that was promised.
    """
    try:
        found = json.loads(data)
        outputs = {output["name"]: output["data"] for output in found["outputs"]}
        label, probabilities = outputs["label"], outputs["probabilities"]
        if len(label) != 1 or len(probabilities) != classes:
            what = f"{len(label)} and {len(probabilities)}"
            raise ValueError(f"expected 1 label and {classes} probabilities, found {what}")
        # A sum with NaN is NaN; min and max may miss it.
        if not (min(probabilities) >= 0 and max(probabilities) <= 1 + _ROUNDING and not math.isnan(sum(probabilities))):
            raise ValueError("expected probabilities between 0 and 1, found others")
        if type(label[0]) is not int or not 0 <= label[0] < classes:
            raise ValueError(f"expected a label below {classes}, found {label[0]!r}")
        version = found.get("model_version")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"expected label and probabilities, found another answer: {error!r}") from None
    return Reply(label[0], version if isinstance(version, str) else None)
