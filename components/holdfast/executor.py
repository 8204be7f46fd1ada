"""What Kubeflow hands a step about itself, and what it reads back: KFP's messages ExecutorInput and ExecutorOutput.

Both are JSON. The first is the placeholder `{{$}}` of a component's arguments; the second, with what people see in the
UI, is written into the file that the first one names. kfp itself is not needed: images do not hold it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import read_bounded, replace_file, strict_json
from holdfast.errors import ArtifactError

MAX_BYTES = 2**17
"""Of the message: Linux takes no longer argument."""
_MOST = 100
"""Outputs of one step."""


@dataclass(frozen=True)
class OutputArtifact:
    """An artifact that a step is to write."""

    name: str
    """As KFP stores it."""
    uri: str
    """Where it will be kept; on one machine its path."""


@dataclass(frozen=True)
class ExecutorInput:
    """What a step needs of the message."""

    output_file: Path
    """Where KFP looks for the ExecutorOutput."""
    artifacts: Mapping[str, OutputArtifact]
    """By the name of the output."""
    parameters: Mapping[str, Path]
    """Files of output parameters, by the name of the output."""

    @property
    def message(self) -> str:
        """The part of KFP's message that this was read from."""
        artifacts = {key: {"artifacts": [{"name": one.name, "uri": one.uri}]} for key, one in self.artifacts.items()}
        parameters = {key: {"outputFile": str(path)} for key, path in self.parameters.items()}
        outputs = {"artifacts": artifacts, "parameters": parameters, "outputFile": str(self.output_file)}
        return json.dumps({"outputs": outputs})


def read_executor_input(text: str) -> ExecutorInput:
    """The outputs that KFP asks for; what else is in the message, also of a later KFP, is not looked at.

    Raises:
        ArtifactError: no such message, or one that is too long.
    """
    name = "--executor-input"
    if len(text) > MAX_BYTES:
        raise ArtifactError(f"{name}: expected at most {MAX_BYTES} characters, found {len(text)}")
    try:
        outputs = _table(_table(strict_json(text.encode(), name))["outputs"])
        artifacts = {key: _artifact(one) for key, one in _entries(outputs, "artifacts")}
        parameters = {key: _path(_table(one)["outputFile"]) for key, one in _entries(outputs, "parameters")}
        return ExecutorInput(_path(outputs["outputFile"]), artifacts, parameters)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f"{name}: expected an ExecutorInput of KFP with its outputs, found {error!r}") from None


def write_executor_output(given: ExecutorInput, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the ExecutorOutput: every artifact that was asked for, with its `metadata` by the name of the output."""
    artifacts = {
        key: {"artifacts": [{"name": one.name, "uri": one.uri, "metadata": dict(metadata.get(key, {}))}]}
        for key, one in given.artifacts.items()
    }
    given.output_file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(given.output_file, json.dumps({"artifacts": artifacts}, allow_nan=False).encode())


def read_metadata(given: ExecutorInput) -> dict[str, dict[str, Any]]:
    """What a step wrote about its artifacts; nothing where it wrote no ExecutorOutput."""
    if not given.output_file.exists():
        return {}
    where = str(given.output_file)
    try:
        found = _table(strict_json(read_bounded(given.output_file, 16 * MAX_BYTES, "an ExecutorOutput"), where))
        return {key: _table(_first(one).get("metadata", {})) for key, one in _entries(found, "artifacts")}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: expected an ExecutorOutput of KFP, found {error!r}") from None


def _entries(outputs: dict[str, Any], key: str) -> list[tuple[str, object]]:
    found = list(_table(outputs.get(key, {})).items())
    if len(found) > _MOST:
        raise ValueError(f"{len(found)} {key}")
    return found


def _artifact(value: object) -> OutputArtifact:
    first = _first(value)
    return OutputArtifact(str(first.get("name", "")), _text(first["uri"]))


def _first(value: object) -> dict[str, Any]:
    return _table(_table(value)["artifacts"][0])


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} in the place of an object")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} in the place of a text")
    return value


def _path(value: object) -> Path:
    path = Path(_text(value))
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{value!r} in the place of an absolute path")
    return path
