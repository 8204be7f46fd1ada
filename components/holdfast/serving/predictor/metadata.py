"""What clients read of a model before they send a row: the tensors of the protocol, with the model's contract in them.

The parameters are those of `holdfast.artifacts.contract`: `columns` or `range` of the input, `classes` of the outputs,
each a text that holds JSON, because over gRPC a parameter has no other structure.
"""

from typing import Any

from holdfast.artifacts.contract import as_texts
from holdfast.artifacts.documents import Model
from holdfast.serving.protocol import DATATYPES

OUTPUTS = ("label", "probabilities")
_OF_THE_INPUT, _OF_THE_OUTPUTS = ("columns", "range"), ("classes",)


def input_tensor(document: Model) -> dict[str, Any]:
    """The tensor that a request holds."""
    spec = document.input
    return {
        "name": "input",
        "datatype": DATATYPES[spec.dtype],
        "shape": [-1, *spec.shape],
        "parameters": _some(document, _OF_THE_INPUT),
    }


def output_tensors(document: Model, *, label_only: bool) -> list[dict[str, Any]]:
    """The tensors of an answer."""
    about = _some(document, _OF_THE_OUTPUTS)
    label = {"name": OUTPUTS[0], "datatype": "INT64", "shape": [-1], "parameters": about}
    shape = [-1, len(document.classes)]
    probabilities = {"name": OUTPUTS[1], "datatype": "FP32", "shape": shape, "parameters": about}
    return [label] if label_only else [label, probabilities]


def _some(document: Model, names: tuple[str, ...]) -> dict[str, str]:
    return {name: text for name, text in as_texts(document).items() if name in names}
