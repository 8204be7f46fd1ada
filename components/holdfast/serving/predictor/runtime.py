"""The MLServer face: Open Inference Protocol (V2), REST and gRPC.

One input tensor `input` (FP32, or INT64 for text), two output tensors: `label` INT64[N], `probabilities` FP32[N, C].
"""

import asyncio
import sys
import time

import numpy as np
from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, RequestInput, ResponseOutput
from numpy.typing import NDArray

from holdfast.artifacts.folder import Ref
from holdfast.errors import InputError, ModelError
from holdfast.serving.predictor.core import Answer, Predictor, check_rows, load_predictor
from holdfast.serving.predictor.game_day import BEGINS, GameDay

INPUT = "input"
_DTYPES = {"FP32": "float32", "INT64": "int64"}


class HoldfastModel(MLModel):
    """Serves the model that `parameters.extra` names; it does not load without a passing decision on its bytes."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        extra = _extra(settings)
        self._model, self._decision = Ref.parse(extra["model"]), Ref.parse(extra["decision"])
        self._game_day = GameDay.parse(extra["game_day"]) if extra.get("game_day") else None
        self._live = 0
        self._chance = np.random.default_rng(0)

    async def load(self) -> bool:
        """Verifies, loads, answers once."""
        self._predictor = load_predictor(self._model, self._decision)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request; 400 for what a client did wrong, 500 for what the model did wrong."""
        if self._fault_is_on(payload):
            return await self._bad_answer(payload)
        return self._respond(payload, _answer(self._predictor, payload))

    def _respond(
        self, payload: InferenceRequest, answer: Answer, parameters: Parameters | None = None
    ) -> InferenceResponse:
        n, classes = answer.probabilities.shape
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            parameters=parameters,
            outputs=[
                ResponseOutput(name="label", shape=[n], datatype="INT64", data=answer.label.tolist()),
                ResponseOutput(
                    name="probabilities",
                    shape=[n, classes],
                    datatype="FP32",
                    data=answer.probabilities.ravel().tolist(),
                ),
            ],
        )

    def _fault_is_on(self, payload: InferenceRequest) -> bool:
        """Counts live answers (neither mirrored nor probes) and says whether the game day's fault is on."""
        if self._game_day is None:
            return False
        if _is_live(payload):
            self._live += 1
            if self._live == self._game_day.after + 1:
                sys.stderr.write(f"{BEGINS} {time.monotonic():.3f}\n")
                sys.stderr.flush()
        return self._live > self._game_day.after

    async def _bad_answer(self, payload: InferenceRequest) -> InferenceResponse:
        day = self._game_day or GameDay()
        await asyncio.sleep(day.delay_ms / 1000)
        if self._chance.random() < day.error:
            raise MLServerError("game day: this answer fails on purpose", 500)
        answer = day.spoil(_answer(self._predictor, payload), self._chance)
        return self._respond(payload, answer, Parameters(game_day=True))


def _answer(predictor: Predictor, payload: InferenceRequest) -> Answer:
    try:
        return predictor.answer(check_rows(_rows(payload), predictor.spec))
    except InputError as error:
        raise MLServerError(str(error), 400) from error
    except ModelError as error:
        raise MLServerError(str(error), 500) from error


def _rows(payload: InferenceRequest) -> NDArray[np.generic]:
    """The tensor `input` in the shape that the request says."""
    tensor = _the_input(payload)
    if tensor.datatype not in _DTYPES:
        raise InputError(f"input: expected datatype {' or '.join(_DTYPES)}, found {tensor.datatype}")
    try:
        flat = np.array(getattr(tensor.data, "root", tensor.data), dtype=_DTYPES[tensor.datatype])
        return flat.reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"input: expected {tensor.datatype} numbers for shape {tensor.shape}, found {error}") from None


def _the_input(payload: InferenceRequest) -> RequestInput:
    named = [tensor for tensor in payload.inputs if tensor.name == INPUT]
    if len(named) != 1 or len(payload.inputs) != 1:
        raise InputError(f"expected one tensor named {INPUT!r}, found {[tensor.name for tensor in payload.inputs]}")
    return named[0]


def _is_live(payload: InferenceRequest) -> bool:
    headers = (getattr(payload.parameters, "headers", None) or {}) if payload.parameters else {}
    host = str(headers.get("host", headers.get("Host", "")))
    return "-shadow" not in host and "x-rollout" not in {name.lower() for name in headers}


def _extra(settings: ModelSettings) -> dict[str, str]:
    extra = (settings.parameters.extra if settings.parameters else None) or {}
    return {key: str(value) for key, value in extra.items()}
