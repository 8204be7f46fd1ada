"""What clients read of a model before they send a row: the tensors of the protocol, with the model's contract in them.

The parameters are those of `holdfast.artifacts.contract`: `columns` or `range` of the input, `classes` of the outputs,
each a text that holds JSON, because over gRPC a parameter has no other structure.
"""

from typing import Any

from holdfast.artifacts.contract import as_texts
from holdfast.artifacts.documents import Model
from holdfast.serving.protocol import DATATYPES

OUTPUTS = ("label", "probabilities")
_OF_THE_INPUT = ("columns", "range")


def input_tensor(document: Model) -> dict[str, Any]:
    """The tensor that a request holds."""
    spec, about = document.input, as_texts(document)
    parameters = {name: about[name] for name in _OF_THE_INPUT if name in about}
    shape = [-1, *spec.shape]
    return {"name": "input", "datatype": DATATYPES[spec.dtype], "shape": shape, "parameters": parameters}


def output_tensors(document: Model, *, label_only: bool) -> list[dict[str, Any]]:
    """The tensors of an answer."""
    about = {name: text for name, text in as_texts(document).items() if name not in _OF_THE_INPUT}
    label = {"name": OUTPUTS[0], "datatype": "INT64", "shape": [-1], "parameters": about}
    shape = [-1, len(document.classes)]
    probabilities = {"name": OUTPUTS[1], "datatype": "FP32", "shape": shape, "parameters": about}
    return [label] if label_only else [label, probabilities]
