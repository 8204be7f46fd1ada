"""What is generated and committed under manifests/: compiled pipelines and JSON schemas."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from holdfast import containers
from holdfast.artifacts.documents import ANY, AnyDocument
from holdfast.artifacts.folder import replace_file
from holdfast.artifacts.policies import LIST
from holdfast.steps import ON_REQUEST, STEPS, names
from holdfast.workload.schema import Workload
from holdfast_pipelines.cluster import ClusterSettings

PIPELINES = tuple(dict.fromkeys(step.pipeline for step in STEPS))
"""The names of the pipelines that are submitted, in the order in which they run."""
RETRAIN, GUARDED = "retrain", "retrain_guarded"
"""The latter: with the steps that a policy or a workload's guard may ask for."""
COMPILED = ("pr_gate", *PIPELINES, GUARDED, "monitor")
"""And that of pull requests, that with a guard, and that which watches a served model."""


def compile_pipelines(out: Path, settings: ClusterSettings | None = None) -> list[Path]:
    """Writes a file for each pipeline into `out` and returns their paths; equal settings give equal bytes."""
    settings = settings or ClusterSettings()
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in COMPILED:
        text = _pull_from(_compiled(name, settings), settings)
        paths.append(out / f"{name}.yaml")
        replace_file(paths[-1], text.encode())
    return paths


def write_schemas(out: Path) -> list[Path]:
    """Writes the JSON schema of every document, of the workload, the policy and a pull request's report into `out`.

    And the policies that ship, as JSON.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, schema in _schemas():
        paths.append(out / f"{name}.json")
        replace_file(paths[-1], (json.dumps(schema, indent=2, sort_keys=True) + "\n").encode())
    paths.append(out / LIST)
    replace_file(paths[-1], (json.dumps(_policies(), indent=2, sort_keys=True) + "\n").encode())
    return sorted(paths)


def documents() -> list[type[BaseModel]]:
    """The kinds of documents, in the order of the pipeline."""
    union, _ = get_args(AnyDocument)
    return list(get_args(union))


def _schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    from holdfast_gates.policy import Policy
    from holdfast_pipelines.pull_request.report import PullRequestReport

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    for kind in documents():
        # As written: a document on disk has every key.
        yield str(kind.model_fields["kind"].default), dialect | kind.model_json_schema(mode="serialization")
    yield "artifact", dialect | ANY.json_schema(mode="serialization")
    # As accepted: people leave out what has a default.
    yield "workload", dialect | Workload.model_json_schema()
    yield "cluster", dialect | ClusterSettings.model_json_schema()
    yield "policy", dialect | Policy.model_json_schema()
    yield "pr-gate", dialect | PullRequestReport.model_json_schema(mode="serialization")


def _policies() -> dict[str, Any]:
    """The list that servers hold a decision's policy against."""
    from holdfast_gates.policy import find, packaged

    return {name: json.loads(find(name).to_json()) for name in packaged()}


def _compiled(name: str, settings: ClusterSettings) -> str:
    from kfp.compiler import Compiler

    from holdfast_pipelines.monitor import monitor
    from holdfast_pipelines.retrain import pr_gate, retrain
    from holdfast_pipelines.rollout import rollout

    made: dict[str, Callable[[], Any]] = {
        RETRAIN: partial(retrain, settings),
        GUARDED: partial(retrain, settings, names(ON_REQUEST)),
        "pr_gate": partial(pr_gate, settings),
        "rollout": partial(rollout, settings),
        "monitor": partial(monitor, settings),
    }
    pipeline = made[name]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        Compiler().compile(pipeline, str(path))
        return path.read_text()


def _pull_from(text: str, settings: ClusterSettings) -> str:
    names = {containers.image(name): settings.image(name) for name in containers.ENVIRONMENTS}
    return re.sub(r"(?m)^( +image: )(\S+)$", lambda found: found[1] + names[found[2]], text)
