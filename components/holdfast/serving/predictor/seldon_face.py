"""The face for Seldon Core v1: the Python wrapper of `seldon-core` 1.18, REST and gRPC, in its own environment.

`seldon-core-microservice holdfast.serving.predictor.seldon_face.HoldfastModel` serves as Seldon's images do, on all
interfaces; for a container. `python -m holdfast.serving.predictor.seldon_face` serves the same on loopback alone, and
leaves no process behind. Rows come as `data.ndarray` or `data.tensor`; probabilities go back with the names of the
classes, and `meta.tags` holds the model's digest and the labels (indices into the names).
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
from flask import Blueprint, Response, after_this_request, has_request_context, jsonify
from flask import request as flask_request
from flask.typing import ResponseReturnValue
from grpc import StatusCode
from gunicorn.arbiter import Arbiter
from numpy.typing import NDArray
from seldon_core import wrapper
from seldon_core.flask_utils import SeldonMicroserviceException
from seldon_core.gunicorn_utils import StandaloneApplication
from seldon_core.microservice import parse_parameters
from seldon_core.user_model import SeldonNotImplementedError, SeldonResponse
from werkzeug.exceptions import HTTPException

from holdfast.artifacts.contract import as_texts
from holdfast.errors import HoldfastError, InputError, ModelError, WorkloadError
from holdfast.processes import die_with_parent, require_free
from holdfast.serving.predictor.core import Answer, from_doubles, load_predictor
from holdfast.serving.predictor.seldon_requests import objection
from holdfast.serving.predictor.settings import LOOPBACK, ModelParameters

if TYPE_CHECKING:
    from holdfast.serving.predictor.guarding import GuardedPredictor

THREADS = 4
_GRACE_SECONDS = 3
_LONGEST_ERROR = 300
_UNREADABLE = (
    ArithmeticError, AttributeError, LookupError, NameError, RecursionError, TypeError, ValueError
)  # fmt: skip
"""What the wrapper's own reading of a request comes to when a client got it wrong; it would be a 500."""


_CALL: ContextVar[tuple[dict[str, str], str] | None] = ContextVar("call", default=None)
"""Metadata and the peer of a call over gRPC, while it is answered."""
_CODES = {422: StatusCode.FAILED_PRECONDITION, 429: StatusCode.RESOURCE_EXHAUSTED, 503: StatusCode.UNAVAILABLE}


class RefusedRequestError(SeldonMicroserviceException):
    """A refused request; unlike its parent it has its reason as text."""

    def __str__(self) -> str:
        return str(self.message)


ERRORS = Blueprint("holdfast", __name__)
"""The wrapper registers it with its app: a request that cannot be read is a 400, another path a 404."""


@ERRORS.app_errorhandler(HTTPException)
def _as_it_is(error: HTTPException) -> ResponseReturnValue:
    return _told(f"expected a call of Seldon's API: {error.name}", error.code or 400)


def _unreadable(error: Exception) -> ResponseReturnValue:
    return _told(f"expected a request of Seldon's API, found one that cannot be read: {str(error)[:200]}", 400)


for _kind in _UNREADABLE:
    ERRORS.app_errorhandler(_kind)(_unreadable)


def _told(why: str, status: int) -> ResponseReturnValue:
    return jsonify(RefusedRequestError(why, status_code=status).to_dict()), status


class CheckedGrpc(wrapper.SeldonModelGRPC):
    """The wrapper's answers over gRPC, with one status for the fault of a client and another for that of the server."""

    def Predict(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802
        """INVALID_ARGUMENT is what REST calls 400, INTERNAL what it calls 500."""
        metadata = {str(one.key).lower(): str(one.value) for one in context.invocation_metadata()}
        _CALL.set((metadata, context.peer()))
        try:
            return super().Predict(request_grpc, context)
        except SeldonMicroserviceException as error:
            other = StatusCode.INTERNAL if error.status_code >= 500 else StatusCode.INVALID_ARGUMENT
            code = _CODES.get(error.status_code, other)
            context.abort(code, str(error.message))
        except _UNREADABLE as error:
            context.abort(StatusCode.INVALID_ARGUMENT, f"expected a SeldonMessage, found {str(error)[:200]}")


# Both servers' settings name their class; users find the same name in either module.
class HoldfastModel:
    """Serves the model that the parameters name; there is no such object without a passing decision on its bytes.

    Parameters of the predictive unit: `model` and `decision` (FOLDER or FOLDER@DIGEST), `trust` (a file), and the
    options of `holdfast.serving.predictor.options`. A refusal ends the process with exit code 3, other failures with
    1 or 2.
    """

    model_error_handler = ERRORS

    def __init__(self, **parameters: object) -> None:
        # Before Seldon forks its servers: all of them share the one network whose bytes were checked.
        try:
            extra = ModelParameters.parse(parameters)
            if extra.game_day:
                raise WorkloadError("game_day: expected none, game days are for the MLServer face")
            self._predictor = load_predictor(extra.model, extra.decision, extra.options, extra.trust)
            self._guard, self._opening = extra.guard, threading.Lock()
            self._guarded: GuardedPredictor | None = None
            if extra.guard is not None:
                from holdfast.serving.predictor.guarding import check_parameters

                check_parameters(self._predictor, extra.guard)
        except HoldfastError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
        wrapper.SeldonModelGRPC = CheckedGrpc  # the wrapper makes its object when its server starts

    def predict_raw(self, request: object) -> SeldonResponse:
        """Refuses what the wrapper would misread, and leaves every other request to it and to `predict`."""
        why = objection(request)
        if why is not None:
            raise RefusedRequestError(why[:_LONGEST_ERROR], status_code=400)
        raise SeldonNotImplementedError("the wrapper reads it")

    def predict(self, X: object, names: Sequence[str], meta: Mapping[str, object] | None = None) -> SeldonResponse:
        """Probabilities float[N, classes] (labels int64[N] when only those are told) of the rows X."""
        answer, flag = self._answer(X)
        data: NDArray[Any] = answer.label if self._predictor.options.label_only else answer.probabilities
        return SeldonResponse(data, tags={"labels": answer.label.tolist(), **flag})

    def tags(self) -> dict[str, str]:
        """The origin of the model, as part of every answer."""
        return {"model": self._predictor.model.digest}

    def class_names(self) -> list[str]:
        """The names of the columns of an answer."""
        return list(self._predictor.classes)

    def health_status(self) -> NDArray[np.floating[Any]]:
        """The answer to a neutral row; an error when the model cannot give one."""
        spec = self._predictor.spec
        zeros = np.zeros((1, *spec.shape), dtype=spec.dtype)
        return self._predictor.answer(zeros).probabilities

    def init_metadata(self) -> dict[str, object]:
        """Seldon's metadata: name, digest as version, shapes of row and answer; the model's contract is in `custom`."""
        document = self._predictor.model.document
        places = [feature.name for feature in document.input.features]
        names = [] if self._predictor.options.label_only else list(document.classes)
        return {
            "name": document.name,
            "versions": [self._predictor.model.digest],
            "platform": "holdfast",
            "inputs": [{"messagetype": "tensor", "schema": {"names": places, "shape": list(document.input.shape)}}],
            "outputs": [{"messagetype": "tensor", "schema": {"names": names, "shape": [len(names)] if names else []}}],
            "custom": as_texts(document),
        }

    def _answer(self, x: object) -> tuple[Answer, dict[str, str]]:
        """The answer, and the tag of one that is held against its client."""
        try:
            rows = self._predictor.check(from_doubles(x, self._predictor.spec))
        except InputError as error:
            raise RefusedRequestError(str(error), status_code=400) from error
        try:
            if self._guard is not None:
                return _watched(self._opened(), rows)
            return self._predictor.answer(rows), {}
        except (ModelError, *_UNREADABLE) as error:  # the rows were found right, so the fault is ours
            raise RefusedRequestError(str(error), status_code=500, reason="MICROSERVICE_INTERNAL_ERROR") from error

    def _opened(self) -> "GuardedPredictor":
        """The guard, opened by the first request: Seldon forks its servers after this object was made."""
        from holdfast.serving.predictor.guarding import GuardedPredictor

        with self._opening:
            if self._guarded is None:
                assert self._guard is not None
                self._guarded = GuardedPredictor(self._predictor, self._guard)
            return self._guarded


def _watched(guarded: "GuardedPredictor", rows: NDArray[np.generic]) -> tuple[Answer, dict[str, str]]:
    from holdfast.serving.predictor.guarding import FLAG, NoRecordsError, NotAnsweredError

    headers, peer = _asked_by()
    try:
        found = guarded.ask(guarded.asker(headers, peer), rows)
    except NotAnsweredError as error:
        if error.retry_after is not None and has_request_context():
            _send_retry_after(error.retry_after)
        raise RefusedRequestError(str(error), status_code=error.status) from error
    except NoRecordsError as error:
        raise RefusedRequestError(str(error), status_code=503) from error
    return found.answer, {FLAG: found.flag} if found.flag else {}


def _asked_by() -> tuple[Mapping[str, str], str | None]:
    """Headers, by names in lower case, and the address of the other end."""
    if has_request_context():
        return {name.lower(): value for name, value in flask_request.headers.items()}, flask_request.remote_addr
    call = _CALL.get()
    return ({}, None) if call is None else (call[0], _address(call[1]))


def _address(peer: str) -> str:
    return peer.partition(":")[2].rpartition(":")[0].strip("[]") or peer


def _send_retry_after(seconds: int) -> None:
    @after_this_request
    def add(response: Response) -> Response:
        response.headers["retry-after"] = str(seconds)
        return response


class NoMetrics:
    """Replaces Seldon's metrics, which take a process of their own; here nothing is measured."""

    def update(self, metrics: Sequence[object], method: str) -> None:
        """Takes no notice."""

    def clear(self) -> None:
        """Has nothing to clear."""


def serve(model: HoldfastModel, *, rest: int, grpc: int) -> None:
    """Serves REST and gRPC on loopback until SIGTERM: one gunicorn worker, which does not outlive this process.

    Raises:
        WorkloadError: a port is taken.
        ModelError: the worker did not start.
    """
    for port in (rest, grpc):
        require_free(port, WorkloadError)

    def start_grpc(worker: Any) -> None:
        die_with_parent()
        if os.getppid() != worker.ppid:
            sys.exit(1)
        server = wrapper.get_grpc_server(model, NoMetrics(), num_threads=THREADS)
        server.add_insecure_port(f"{LOOPBACK}:{grpc}")
        server.start()
        worker.holdfast_grpc = server  # kept from the garbage collector

    options = {
        "bind": f"{LOOPBACK}:{rest}",
        "workers": 1,
        "worker_class": "gthread",
        "threads": THREADS,
        "loglevel": "warning",
        "graceful_timeout": _GRACE_SECONDS,
        "post_worker_init": start_grpc,
        "worker_exit": _end,
    }
    application = StandaloneApplication(wrapper.get_rest_microservice(model, NoMetrics()), options)
    try:
        application.run()
    except SystemExit as ended:
        if ended.code != Arbiter.WORKER_BOOT_ERROR:
            raise
        # gunicorn exits with 3, which is the exit code of a refused model here.
        raise ModelError("gunicorn: expected a worker that starts, found that it did not; see above") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves as `seldon-core-microservice` does, on loopback; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.serving.predictor.seldon_face", description=__doc__)
    parser.add_argument("--http-port", type=int, default=9000, help="port of REST on 127.0.0.1")
    parser.add_argument("--grpc-port", type=int, default=5000, help="port of gRPC on 127.0.0.1")
    default = os.environ.get("PREDICTIVE_UNIT_PARAMETERS", "[]")
    parser.add_argument("--parameters", default=default, help="as Seldon gives them: [{name, value, type}]")
    given = parser.parse_args(arguments)
    try:
        model = HoldfastModel(**_parameters(given.parameters))
        serve(model, rest=given.http_port, grpc=given.grpc_port)
    except HoldfastError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _end(_: Any, worker: Any) -> None:
    """Answers what is under way over gRPC, then leaves; taking torch down in order takes seconds."""
    worker.holdfast_grpc.stop(_GRACE_SECONDS / 2).wait()
    sys.stderr.flush()
    os._exit(0)


def _parameters(text: str) -> dict[str, object]:
    try:
        return dict(parse_parameters(json.loads(text)))
    except SeldonMicroserviceException as error:
        raise WorkloadError(f"parameters: {error.message}") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise WorkloadError(f"parameters: expected a JSON list of name, value, type, found {error}") from None


if __name__ == "__main__":
    sys.exit(main())
