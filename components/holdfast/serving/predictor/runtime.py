"""The MLServer face: Open Inference Protocol (V2), REST and gRPC.

One input tensor `input` (FP32, or INT64 for text), two output tensors: `label` INT64[N], `probabilities` FP32[N, C].
A model that is not served ends the process, also under plain `mlserver start`, which would swallow the failure.
"""

import asyncio
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.settings import ModelSettings
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    ResponseOutput,
)
from numpy.typing import NDArray

from holdfast.errors import HoldfastError, InputError, ModelError, WorkloadError
from holdfast.serving.predictor.admission import admit_named
from holdfast.serving.predictor.core import Answer, Predictor, load_admitted
from holdfast.serving.predictor.game_day import BEGINS, GameDay
from holdfast.serving.predictor.intake import LONGEST_ID, MOST_DIMENSIONS, PEER, NotAnsweredByGuardError, plain
from holdfast.serving.predictor.metadata import OUTPUTS, input_tensor, output_tensors
from holdfast.serving.predictor.settings import ModelParameters
from holdfast.serving.protocol import DATATYPES

if TYPE_CHECKING:
    from holdfast.serving.predictor.guarding import GuardedPredictor

INPUT = "input"
_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}


class HoldfastModel(MLModel):
    """Serves the model that `parameters.extra` names; it does not load without a passing decision on its bytes."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._live = 0
        self._guarded: GuardedPredictor | None = None
        self._chance = np.random.default_rng(0)
        # Here and not in `load`: with a pool of workers only this runs in the process that MLServer ends with code 0.
        try:
            self._extra = ModelParameters.parse(_extra(settings), Path(settings._source or "").parent)
            self._batched = _is_batched(settings, self._extra)
            if self._extra.guard and self._extra.game_day:
                raise WorkloadError("game_day: expected none with a guard, found both")
            self._admitted = admit_named(self._extra)
        except HoldfastError as error:
            _give_up(error)

    async def load(self) -> bool:
        """Loads the admitted model and answers once."""
        try:
            self._predictor = load_admitted(self._admitted, self._extra.options)
            if self._extra.guard is not None:
                from holdfast.serving.predictor.guarding import GuardedPredictor

                self._guarded = GuardedPredictor(self._predictor, self._extra.guard)
        except HoldfastError as error:
            _give_up(error)
        if self._batched:
            self._check_before_batching()
        return True

    async def unload(self) -> bool:
        """Closes the guard's records."""
        if self._guarded is not None:
            self._guarded.close()
        return True

    async def metadata(self) -> MetadataModelResponse:
        """The tensors with the contract of the model that is served, and its operating point (JSON) as a parameter."""
        found, document = await super().metadata(), self._admitted.document
        outputs = output_tensors(document, label_only=self._extra.options.label_only)
        found.inputs = [MetadataTensor.model_validate(input_tensor(document))]
        found.outputs = [MetadataTensor.model_validate(output) for output in outputs]
        if document.operating_point is not None:
            given = found.parameters or Parameters()
            found.parameters = given.model_copy(update={"operating_point": document.operating_point.published})
        return found

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request; 400 for what a client did wrong, 500 for what the model did wrong."""
        if self._batched:
            return self._respond(payload, self._answer(payload))
        _require_id(payload)
        wanted = self._wanted(payload)
        if self._guarded is not None:
            return _only(wanted, self._watched(payload, self._guarded))
        if self._extra.game_day and self._fault_is_on(payload, self._extra.game_day):
            return _only(wanted, await self._bad_answer(payload))
        return _only(wanted, self._respond(payload, self._answer(payload)))

    def _watched(self, payload: InferenceRequest, guarded: "GuardedPredictor") -> InferenceResponse:
        """The answer as the guard lets it be."""
        from holdfast.serving.predictor.guarding import FLAG, NoRecordsError, NotAnsweredError

        try:
            found = guarded.ask(guarded.asker(_headers(payload), PEER.get()), _checked(self._predictor, payload))
        except NotAnsweredError as error:
            raise NotAnsweredByGuardError(str(error), error.status, error.retry_after) from error
        except NoRecordsError as error:
            raise MLServerError(str(error), 503) from error
        except ModelError as error:
            raise MLServerError(str(error), 500) from error
        return self._respond(payload, found.answer, Parameters(**{FLAG: found.flag}) if found.flag else None)

    def _wanted(self, payload: InferenceRequest) -> set[str] | None:
        """The outputs that a client asks for; None: all of them."""
        if not payload.outputs:
            return None
        known = OUTPUTS[: 1 if self._extra.options.label_only else 2]
        unknown = [output.name for output in payload.outputs if output.name not in known]
        if unknown:
            raise _refusal(f"outputs: expected {' or '.join(known)}, found {unknown[0]!r}")
        return {output.name for output in payload.outputs}

    def _check_before_batching(self) -> None:
        """MLServer strings the rows of concurrent requests together: a wrong one must not get among them."""
        batched = self.predict

        async def predict(payload: InferenceRequest) -> InferenceResponse:
            _require_id(payload)
            wanted, payload.outputs = self._wanted(payload), None
            payload.inputs = [_tensor(_checked(self._predictor, payload))]
            return _only(wanted, await batched(payload))

        self.predict = predict  # type: ignore[method-assign]

    def _answer(self, payload: InferenceRequest) -> Answer:
        try:
            rows = _rows(payload) if self._batched else _checked(self._predictor, payload)
            return self._predictor.answer(rows)
        except ModelError as error:
            raise MLServerError(str(error), 500) from error

    def _respond(
        self, payload: InferenceRequest, answer: Answer, parameters: Parameters | None = None
    ) -> InferenceResponse:
        n, classes = answer.probabilities.shape
        outputs = [ResponseOutput(name="label", shape=[n], datatype="INT64", data=answer.label.tolist())]
        if not self._extra.options.label_only:
            flat = answer.probabilities.ravel().tolist()
            outputs.append(ResponseOutput(name="probabilities", shape=[n, classes], datatype="FP32", data=flat))
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            parameters=parameters,
            outputs=outputs,
        )

    def _fault_is_on(self, payload: InferenceRequest, day: GameDay) -> bool:
        """Counts live answers (neither mirrored nor probes); whether the game day's fault is on."""
        _checked(self._predictor, payload)
        if _is_live(payload):
            self._live += 1
            if self._live == day.after + 1:
                sys.stderr.write(f"{BEGINS} {time.monotonic():.3f}\n")
                sys.stderr.flush()
        return self._live > day.after

    async def _bad_answer(self, payload: InferenceRequest) -> InferenceResponse:
        day = self._extra.game_day or GameDay()
        await asyncio.sleep(day.delay_ms / 1000)
        if self._chance.random() < day.crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._chance.random() < day.error:
            raise MLServerError("game day: this answer fails on purpose", 500)
        with self._network_that_gives_nan(self._chance.random() < day.nan):
            answer = day.spoil(self._answer(payload), self._chance)
        if self._chance.random() < day.shape:
            answer = Answer(answer.label, answer.probabilities[:, :-1])
        return self._respond(payload, answer, Parameters(game_day=True))

    @contextmanager
    def _network_that_gives_nan(self, on: bool) -> Iterator[None]:
        network = self._predictor.network
        hook = network.register_forward_hook(lambda _, __, logits: logits * float("nan")) if on else None
        try:
            yield
        finally:
            if hook is not None:
                hook.remove()


def _checked(predictor: Predictor, payload: InferenceRequest) -> NDArray[np.generic]:
    try:
        return predictor.check(_rows(payload))
    except InputError as error:
        raise _refusal(str(error)) from error


def _refusal(why: str) -> MLServerError:
    """What a client got wrong."""
    return MLServerError(plain(why), 400)


def _require_id(payload: InferenceRequest) -> None:
    """MLServer sends the id back in a header: it must fit into one, and must not end it."""
    given = payload.id or ""
    if len(given) > LONGEST_ID or not given.isprintable() or not _is_latin(given):
        raise _refusal(f"id: expected at most {LONGEST_ID} printable Latin-1 characters, found {given[:40]!r}")


def _is_latin(text: str) -> bool:
    return all(ord(sign) < 256 for sign in text)


def _only(wanted: set[str] | None, response: InferenceResponse) -> InferenceResponse:
    if wanted is not None:
        response.outputs = [output for output in response.outputs if output.name in wanted]
    return response


def _rows(payload: InferenceRequest) -> NDArray[np.generic]:
    """The tensor `input` in the shape that the request names."""
    tensor = _the_input(payload)
    if tensor.datatype not in _DTYPES:
        raise InputError(f"input: expected datatype {' or '.join(_DTYPES)}, found {tensor.datatype}")
    shape, data = tensor.shape, getattr(tensor.data, "root", tensor.data)
    if not 1 <= len(shape) <= MOST_DIMENSIONS or min(shape) < 0:
        raise InputError(f"input: expected a shape of 1 to {MOST_DIMENSIONS} sizes from 0 on, found {shape}")
    flat = _numbers(_flattened(data, shape), tensor.datatype)
    if flat.size != math.prod(shape):
        raise InputError(f"input: expected {tensor.datatype} numbers for shape {shape}, found {flat.size}")
    return flat.reshape(shape)


def _flattened(data: object, shape: Sequence[int]) -> object:
    """The numbers of lists that are nested as the shape is; a flat list, and what is no list, as it is."""
    if not isinstance(data, list) or not data or type(data[0]) is not list:
        return data
    level = [data]
    for size in shape:
        if any(type(part) is not list or len(part) != size for part in level):
            raise InputError(f"input: expected a flat list, or lists nested as the shape {shape}, found others")
        level = [value for part in level for value in part]
    return level


def _numbers(data: object, datatype: str) -> NDArray[np.generic]:
    """An array of the datatype from a flat list of JSON numbers; what only looks like numbers is refused."""
    allowed = {int, float} if datatype == "FP32" else {int}
    if not isinstance(data, list) or not set(map(type, data)) <= allowed:
        kinds = sorted({type(value).__name__ for value in data}) if isinstance(data, list) else [type(data).__name__]
        raise InputError(f"input: expected {datatype} numbers, found {', '.join(kinds)}")
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and infinity is refused
            return np.array(data, dtype=_DTYPES[datatype])
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"input: expected {datatype} numbers, found {error}") from None


def _the_input(payload: InferenceRequest) -> RequestInput:
    if len(payload.inputs) != 1 or payload.inputs[0].name != INPUT:
        raise InputError(f"expected one tensor named {INPUT!r}, found {[tensor.name for tensor in payload.inputs]}")
    tensor = payload.inputs[0]
    if getattr(tensor.parameters, "binary_data_size", None) is not None:
        raise InputError("input: expected data as JSON, found binary_data_size: binary tensor data is not supported")
    return tensor


def _tensor(rows: NDArray[np.generic]) -> RequestInput:
    """Checked rows as a flat tensor."""
    datatype = DATATYPES[str(rows.dtype)]
    return RequestInput(name=INPUT, shape=list(rows.shape), datatype=datatype, data=rows.ravel().tolist())


def _is_live(payload: InferenceRequest) -> bool:
    """Whether a client sent it: the router removes the header from a client's request, and writes the host itself."""
    headers = _headers(payload)
    return "-shadow" not in headers.get("host", "") and "x-rollout" not in headers


def _headers(payload: InferenceRequest) -> dict[str, str]:
    """Of the request, by names in lower case."""
    found = (getattr(payload.parameters, "headers", None) or {}) if payload.parameters else {}
    return {str(name).lower(): str(value) for name, value in found.items()}


def _extra(settings: ModelSettings) -> Mapping[str, object]:
    return (settings.parameters.extra if settings.parameters else None) or {}


def _is_batched(settings: ModelSettings, extra: ModelParameters) -> bool:
    """Whether MLServer joins concurrent requests.

    Raises:
        WorkloadError: it would join them before each one was checked.
    """
    if settings.max_batch_size <= 1 or settings.max_batch_time <= 0:
        return False
    if multiprocessing.parent_process() or multiprocessing.active_children():
        raise WorkloadError("max_batch_size: expected parallel_workers 0, found a pool of workers")
    if extra.game_day:
        raise WorkloadError("max_batch_size: expected none on a game day, which counts single answers")
    if extra.guard:
        raise WorkloadError("max_batch_size: expected none with a guard, which must know whose rows are whose")
    return True


def _give_up(error: HoldfastError) -> NoReturn:
    """Writes the error, and ends a server that is starting; one that runs goes on without the model that was asked for.

    Raises:
        HoldfastError: the server runs.
    """
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    if not _is_starting():
        raise error
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(error.exit_code)


def _is_starting() -> bool:
    """MLServer gives each model a task of its own at the start; later it loads in the task of who asked for it."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and getattr(task.get_coro(), "__qualname__", "") == "MultiModelRegistry.load"
