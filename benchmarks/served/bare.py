"""The least that an MLServer custom runtime can do with a network: no decision, no digest, no look at the rows."""

from pathlib import Path

import numpy as np
import torch
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import load
from holdfast.model.networks import load_network


class BareModel(MLModel):
    """Answers in the shape that the predictor answers in."""

    async def load(self) -> bool:
        """Loads the network that `parameters.extra` names."""
        torch.set_num_threads(1)
        self._network = load_network(load(Path(self.settings.parameters.extra["model"]), Model), "cpu")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Labels and probabilities."""
        tensor = payload.inputs[0]
        x = np.array(tensor.data.root, dtype=np.float32).reshape(tensor.shape)
        with torch.inference_mode():
            probabilities = torch.softmax(self._network(torch.from_numpy(x)), dim=1).numpy()
        n, classes = probabilities.shape
        label, flat = probabilities.argmax(axis=1).tolist(), probabilities.ravel().tolist()
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[
                ResponseOutput(name="label", shape=[n], datatype="INT64", data=label),
                ResponseOutput(name="probabilities", shape=[n, classes], datatype="FP32", data=flat),
            ],
        )
