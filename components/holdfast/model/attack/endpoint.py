"""A served model as a network that only answers: the Open Inference Protocol (V2) over HTTP.

https://github.com/open-inference/open-inference-protocol. What MLServer, Seldon, KServe and Triton speak.
"""

import json
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from holdfast.errors import ModelError

BATCH = 64
MAX_BYTES = 64 * 2**20
SECONDS = 30.0
_DATATYPES = {torch.float32: "FP32", torch.int64: "INT64"}


class Endpoint(nn.Module):
    """Answers as one-hot scores float32[N, classes]; `asked` counts the rows that were sent.

    Raises:
        ModelError: at each call, when the address does not answer as the protocol requires.
    """

    def __init__(self, url: str, classes: tuple[str, ...]) -> None:
        super().__init__()
        if urlsplit(url).scheme not in ("http", "https"):
            raise ModelError(f"{url}: expected an http or https address, found {urlsplit(url).scheme!r}")
        self.url = url.rstrip("/") + "/infer"
        self.classes = classes
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        """One-hot answers float32[N, classes] to inputs `[N, ...]`."""
        labels = [label for rows in x.split(BATCH) for label in self._labels(rows)]
        return nn.functional.one_hot(torch.tensor(labels, dtype=torch.int64), len(self.classes)).float().to(x.device)

    def _labels(self, x: Tensor) -> list[int]:
        self.asked += len(x)
        outputs = self._ask(x)
        label = next((o for o in outputs if o.get("name") == "label"), outputs[0] if outputs else {})
        data, shape = label.get("data"), label.get("shape")
        if not isinstance(data, list) or not isinstance(shape, list) or not shape or shape[0] != len(x):
            raise ModelError(f"{self.url}: expected an output of {len(x)} rows, found {str(label)[:80]}")
        if len(data) == len(x):
            return [self._index(value) for value in data]
        scores = torch.tensor(data, dtype=torch.float32).reshape(len(x), -1)
        if scores.shape[1] != len(self.classes):
            raise ModelError(f"{self.url}: expected {len(self.classes)} scores a row, found {scores.shape[1]}")
        return [int(index) for index in scores.argmax(1)]

    def _index(self, value: object) -> int:
        """A class from its index or its name."""
        if isinstance(value, str) and value in self.classes:
            return self.classes.index(value)
        if isinstance(value, int | float) and float(value).is_integer() and 0 <= value < len(self.classes):
            return int(value)
        raise ModelError(f"{self.url}: expected a class of {list(self.classes)} or its index, found {value!r}")

    def _ask(self, x: Tensor) -> list[dict[str, object]]:
        tensor = {"name": "input", "datatype": _DATATYPES[x.dtype], "shape": list(x.shape)}
        body = json.dumps({"inputs": [tensor | {"data": x.flatten().tolist()}]}).encode()
        # The scheme was checked: no file: or ftp: address comes here.
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                data = answer.read(MAX_BYTES + 1)
            found = json.loads(data) if len(data) <= MAX_BYTES else {}
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
            raise ModelError(f"{self.url}: expected an answer of the V2 protocol, found {error}") from None
        outputs = found.get("outputs") if isinstance(found, dict) else None
        if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
            raise ModelError(f"{self.url}: expected outputs, found {str(found)[:80]}")
        return outputs
