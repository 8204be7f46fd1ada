"""Options that several subcommands have, how they are read, and how a step's result is handed on."""

import functools
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from holdfast.steps import evidence

if TYPE_CHECKING:
    from holdfast.artifacts.documents import Document
    from holdfast.artifacts.folder import Artifact, Ref
    from holdfast.attestation.keys import Signer
    from holdfast.compute import Compute
    from holdfast.workload.schema import Section, Workload

STATE = ".holdfast"
TRACKING = f"sqlite:///{STATE}/mlflow.db"
WAIVERS = Path(STATE) / "waivers"
"""Where `holdfast waive` keeps what was signed, and `holdfast run` looks for it."""
C = TypeVar("C", bound="Section")

Out = Annotated[Path, typer.Option(help="Folder that the artifact becomes.")]
Config = Annotated[str, typer.Option(help="The step's section as JSON, or a workload file.")]
Tracking = Annotated[str, typer.Option(help="MLflow tracking URI.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random in this step.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the document on standard output.")]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DigestFile = Annotated[Path | None, typer.Option(help="Write the artifact's digest into this file.", hidden=True)]
VerdictFile = Annotated[Path | None, typer.Option(help="Write the verdict into this file.", hidden=True)]
ForKubeflow = Annotated[str, typer.Option("--executor-input", help="What Kubeflow asks a step for.", hidden=True)]
PageFile = Annotated[Path | None, typer.Option(help="Copy the page that people open into this file.", hidden=True)]


SnapshotRef = Annotated[str, typer.Option(help="Snapshot artifact: FOLDER or FOLDER@DIGEST.")]
BaselineRef = Annotated[str | None, typer.Option(help="Baseline artifact (the champion): FOLDER or FOLDER@DIGEST.")]
ModelRef = Annotated[str, typer.Option(help="Model artifact: FOLDER or FOLDER@DIGEST.")]
ScanRef = Annotated[str | None, typer.Option(help="Scan report: FOLDER or FOLDER@DIGEST.")]
EvidenceRef = Annotated[str | None, typer.Option(help="Evidence artifact: FOLDER or FOLDER@DIGEST.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="CPU threads; part of the result, since sums depend on it.", min=1)]
KeyName = Annotated[
    str,
    typer.Option(
        "--key",
        help="What signs: a private key (PEM), vault://MOUNT/NAME with VAULT_ADDR and VAULT_TOKEN, or keyless:// with "
        "the identity of the CI job (SIGSTORE_ID_TOKEN); keyless://FILE: a private instance's client trust config.",
    ),
]
SigningKey = Annotated[
    str | None,
    typer.Option(
        "--key", help="Sign what was written: a private key (PEM), vault://MOUNT/NAME, keyless:// or keyless://FILE."
    ),
]
Attestations = Annotated[
    Path | None, typer.Option(help="Folder of signed statements; `attestations` next to --out when left out.")
]
TrustFileOption = Annotated[
    Path | None,
    typer.Option(
        "--trust",
        help="Whose signatures must be there, and which policies count: a trust policy (trust.yaml).",
        callback=lambda path: None if path == Path() else path,
    ),
]
"""Empty, as a pipeline hands on what is left out: none."""
Because = Annotated[
    str, typer.Option(help="Request of the monitor that this answers: FOLDER, FOLDER@DIGEST, or its JSON.")
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", help="Do only part I of N (I/N, from 1/N to N/N), and write what was seen as a part."),
]
PartRefs = Annotated[
    list[str] | None,
    typer.Option(
        "--part", help="Measure nothing: join the parts of all N shards, FOLDER or FOLDER@DIGEST each (repeat it)."
    ),
]
WorkloadFile = Annotated[Path, typer.Option(help="Workload file, or the name of one that ships.")]


def read_section(text: str, kind: "type[C]", pick: "Callable[[Workload], C]") -> "C":
    """A step's section: from JSON, or picked from a workload file (or the name of one that ships).

    As in a whole run, paths in the file are relative to its folder, from which its own code is imported, too.
    """
    from holdfast.workload.yaml import parse_yaml

    if text.lstrip().startswith("{"):
        return parse_yaml(text, kind, name="--config")
    return pick(placed_workload(Path(text)))


def placed_workload(named: Path) -> "Workload":
    """A workload file, or one that ships, with absolute paths and its own code importable."""
    from holdfast.workload.paths import absolute, make_importable
    from holdfast.workload.schema import read_workload

    path = shipped(named)
    workload = read_workload(path)
    folder = path.resolve().parent
    make_importable(workload, folder)
    return absolute(workload, folder)


def ref(text: str) -> "Ref":
    """An artifact as an option names it."""
    from holdfast.artifacts.folder import Ref

    return Ref.parse(text)


def maybe_ref(text: str | None) -> "Ref | None":
    """The same for an artifact that may be left out."""
    return ref(text) if text else None


def step_command(function: Callable[..., Any]) -> Callable[..., None]:
    """Makes a subcommand of a function that returns a step's artifact, or the artifact and an exit code.

    The subcommand also has the options that every step has. Where the function takes them, `settings` is made from
    --seed, --device and --threads, and `evidence` from one option for each step whose artifact the gate reads.
    """
    taken = inspect.signature(function).parameters
    compute = _COMPUTE if "settings" in taken else {}
    roles = tuple(evidence()) if "evidence" in taken else ()
    signing = {name: one for name, one in _SIGNING.items() if name not in taken}
    added = [*compute.values(), *(_option(role, EvidenceRef, None) for role in roles), *signing.values()]
    added += _RESULT.values()
    options = [*(one for name, one in taken.items() if name not in ("settings", "evidence")), *added]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        result = [given.pop(name) for name in _RESULT]
        key, signed_in = (given.pop(name) if name in signing else given[name] for name in _SIGNING)
        if compute:
            given["settings"] = compute_settings(*(given.pop(name) for name in compute))
        if roles:
            texts = {role: given.pop(role) for role in roles}
            given["evidence"] = {role: ref(text) for role, text in texts.items() if text}
        _check_out(given)
        signer = _signer(key)
        made = _made(function, given)
        artifact, code = made if isinstance(made, tuple) else (made, 0)
        sign(artifact, signer, signed_in)
        finish(artifact, *result)
        if code:
            raise typer.Exit(code)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def _made(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """What the step makes; in a pod with a cache, what it made before from the same inputs."""
    from holdfast.pod_cache import PodCache

    cache = PodCache.of(function.__name__, given, os.environ)
    found = None if cache is None else cache.find(given["out"])
    if found is not None:
        return found
    made = function(**given)
    if cache is not None:
        cache.keep(made)
    return made


def _check_out(given: dict[str, Any]) -> None:
    """Refuses an `--out` that cannot be written, before anything is computed."""
    from holdfast.artifacts.folder import check_place

    if isinstance(given.get("out"), Path):
        check_place(given["out"])


def _option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_COMPUTE = {
    one.name: one
    for one in (_option("seed", Seed, 0), _option("device", DeviceOption, "auto"), _option("threads", Threads, 1))
}
_RESULT = {
    one.name: one
    for one in (
        _option("digest_file", DigestFile, None),
        _option("verdict_file", VerdictFile, None),
        _option("as_json", AsJson, False),
        _option("executor_input", ForKubeflow, ""),
        _option("page_file", PageFile, None),
    )
}


_SIGNING = {one.name: one for one in (_option("key", SigningKey, None), _option("attestations", Attestations, None))}


def _signer(key: str | None) -> "Signer | None":
    """The key that signs, read before anything is computed."""
    from holdfast.attestation.keys import read_signer

    return None if key is None else read_signer(key)


def sign(artifact: "Artifact[Any]", signer: "Signer | None", attestations: Path | None) -> None:
    """Signs what a step wrote, where a key was given."""
    if signer is None:
        return
    from datetime import UTC, datetime

    from holdfast.attestation.sign import attest
    from holdfast.attestation.store import ATTESTATIONS

    folder = attestations or artifact.folder.resolve().parent / ATTESTATIONS
    attest(artifact, signer, folder, run="", at=datetime.now(UTC))


def compute_settings(seed: int, device: str, threads: int) -> "Compute":
    """Where and with which seed a step computes.

    Raises:
        typer.BadParameter: no such device.
    """
    from holdfast.compute import Compute

    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"expected auto, cpu or cuda, found {device!r}", param_hint="--device")
    return Compute(seed=seed, device=device, threads=threads)  # type: ignore[arg-type]


def shipped(workload: Path) -> Path:
    """The workload file, or the one of that name that ships with Holdfast.

    Raises:
        WorkloadError: neither is there.
    """
    if workload.exists():
        return workload
    from holdfast.errors import WorkloadError
    from holdfast.resources import workloads

    known = {path.stem: path for path in workloads()}
    if str(workload) in known:
        return known[str(workload)]
    raise WorkloadError(f"{workload}: expected a workload file or one of {', '.join(sorted(known))}, found neither")


def reviews_folder(name: str) -> Path:
    """Where the reviews of the workload `name` are kept, unless it names a folder itself."""
    return Path(STATE) / "reviews" / name


def print_paths(paths: Iterable[Path], as_json: bool) -> None:
    """Lists files on standard output."""
    written = [str(path) for path in paths]
    typer.echo(json.dumps(written) if as_json else "\n".join(written))


def finish(
    artifact: "Artifact[Any]",
    digest_file: Path | None,
    verdict_file: Path | None,
    as_json: bool,
    executor_input: str = "",
    page_file: Path | None = None,
) -> None:
    """Hands on the digest and the verdict to the pipeline, what people look at to its UI, the document to stdout."""
    from holdfast.artifacts.folder import canonical_json
    from holdfast.artifacts.inspect import verdict_of

    document: Document = artifact.document
    if digest_file is not None:
        write(digest_file, artifact.digest)
    if verdict_file is not None:
        write(verdict_file, verdict_of(document))
    show_in_kubeflow(artifact, executor_input, page_file)
    if as_json:
        typer.echo(canonical_json(document).decode().rstrip("\n"))


def show_in_kubeflow(artifact: "Artifact[Any]", executor_input: str, page_file: Path | None) -> None:
    """Writes what Kubeflow's UI shows of an artifact: its numbers, its confusion matrices, its page."""
    from holdfast.executor import read_executor_input, write_executor_output
    from holdfast.measured import confusion_matrices, measured, page_of

    if page_file is not None:
        page_file.parent.mkdir(parents=True, exist_ok=True)
        page_file.write_bytes(page_of(artifact))
    if executor_input:
        matrices = {name: one.for_kubeflow() for name, one in confusion_matrices(artifact).items()}
        shown = {"metrics": measured(artifact.document), **matrices}
        write_executor_output(read_executor_input(executor_input), shown)


def same_command() -> str:
    """The command line of this process, to be typed again."""
    return shlex.join(["holdfast", *sys.argv[1:]])


def write(path: Path, text: str) -> None:
    """Writes a small file for the pipeline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
