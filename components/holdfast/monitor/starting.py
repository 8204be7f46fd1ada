"""Starts `retrain` on a cluster because of a request: one call of the API of Kubeflow Pipelines, without kfp."""

import json
import os
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from holdfast.artifacts.documents import RetrainRequest
from holdfast.artifacts.folder import Artifact
from holdfast.artifacts.requests import request_text
from holdfast.errors import HoldfastError, RunError, WorkloadError
from holdfast.http_client import HttpClient

TOKEN = "KFP_TOKEN"
"""The environment variable with the API's bearer token."""
SECONDS = 30.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RetrainStart:
    """What a monitor needs to start `retrain`: `holdfast submit --pipeline monitor` makes it."""

    endpoint: str
    """URL of the API, as pods reach it."""
    experiment: str
    pipeline: str
    version: str
    parameters: dict[str, str | int]
    """Of the pipeline, without the request."""

    @classmethod
    def parse(cls, text: str) -> "RetrainStart":
        """From JSON.

        Raises:
            WorkloadError: it is none.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError, ValidationError) as error:
            line = str(error).splitlines()[0][:120]
            raise WorkloadError(f"--start: expected what `holdfast submit` makes, found {line!r}") from None


def start(how: RetrainStart, request: Artifact[RetrainRequest], environment: Mapping[str, str] = os.environ) -> str:
    """Starts one run, named after the workload and the hour of the request; returns its id.

    It is tried once: a call without an answer may have had an effect, and the next report asks again.

    Raises:
        RunError: the API refused, or gave no answer.
    """
    token = environment.get(TOKEN, "").strip()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    body: dict[str, Any] = {
        "display_name": f"{request.document.name} because of {request.document.asked}",
        "description": request.document.reason[:300],
        "experiment_id": how.experiment,
        "pipeline_version_reference": {"pipeline_id": how.pipeline, "pipeline_version_id": how.version},
        "runtime_config": {"parameters": {**how.parameters, "because": request_text(request)}},
    }
    client = HttpClient(how.endpoint, seconds=SECONDS, max_bytes=2**22)
    try:
        answer = client.exchange("POST", "/apis/v2beta1/runs", headers, json.dumps(body).encode())
        if answer.status != 200:
            raise RunError(f"{how.endpoint}: the Kubeflow Pipelines API refused the retraining: {answer.status}")
        return str(json.loads(answer.data)["run_id"])
    except RunError:
        raise
    except (HoldfastError, ValueError, KeyError, TypeError) as error:
        line = str(error).splitlines()[0][:200]
        raise RunError(f"{how.endpoint}: expected the id of a run from the Kubeflow API, found {line}") from None
    finally:
        client.close()
