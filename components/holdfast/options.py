"""Options that several subcommands have, how a step's section is read, and how its result is handed on."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from holdfast.artifacts.documents import Document
    from holdfast.artifacts.folder import Artifact
    from holdfast.workload import Section, Workload

STATE = ".holdfast"
TRACKING = f"sqlite:///{STATE}/mlflow.db"
C = TypeVar("C", bound="Section")

Out = Annotated[Path, typer.Option(help="Folder that the artifact becomes.")]
Config = Annotated[str, typer.Option(help="The step's section as JSON, or a workload file.")]
Tracking = Annotated[str, typer.Option(help="MLflow tracking URI.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random in this step.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the document on standard output.")]
DigestFile = Annotated[Path | None, typer.Option(help="Write the artifact's digest into this file.", hidden=True)]
VerdictFile = Annotated[Path | None, typer.Option(help="Write the verdict into this file.", hidden=True)]


def section(text: str, kind: "type[C]", pick: "Callable[[Workload], C]") -> "C":
    """A step's section: from JSON, or picked from a workload file."""
    from holdfast.workload import read_workload
    from holdfast.yamlfile import parse_yaml

    if text.lstrip().startswith("{"):
        return parse_yaml(text, kind, name="--config")
    return pick(read_workload(Path(text)))


def finish(artifact: "Artifact[Any]", digest_file: Path | None, verdict_file: Path | None, as_json: bool) -> None:
    """Hands the result on: digest and verdict to the pipeline, the document to standard output."""
    from holdfast.artifacts.folder import canonical_json
    from holdfast.artifacts.inspect import verdict_of

    document: Document = artifact.document
    if digest_file is not None:
        write(digest_file, artifact.digest)
    if verdict_file is not None:
        write(verdict_file, verdict_of(document))
    if as_json:
        typer.echo(canonical_json(document).decode().rstrip("\n"))


def same_command() -> str:
    """The command line of this process, to be typed again."""
    return shlex.join(["holdfast", *sys.argv[1:]])


def write(path: Path, text: str) -> None:
    """Writes a small file for the pipeline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
