"""`holdfast incident`: open, show and close the record of what went wrong with a served model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import ResultAsJson, SigningKey, TrustFileOption

if TYPE_CHECKING:
    from holdfast.artifacts.documents import IncidentRecord
    from holdfast.artifacts.folder import Artifact
    from holdfast.attestation.trust import TrustPolicy
    from holdfast.incident.step import Sources

app = typer.Typer(
    help="Collect what is known about a served model that went wrong into one timeline that cannot be changed unseen.",
    no_args_is_help=True,
)

IncidentFolder = Annotated[Path, typer.Argument(help="Folder of the incident.")]
ByPerson = Annotated[str, typer.Option(help="Who.")]
ReasonLineOption = Annotated[str, typer.Option(help="Why, in a line.")]
EvidenceFolders = Annotated[
    list[Path] | None,
    typer.Option("--evidence", help="Folder with artifacts: a run, a bundle, reviews, reports, rollouts (repeat it)."),
]
GuardFiles = Annotated[list[Path] | None, typer.Option("--guard", help="SQLite file of a guard (repeat it).")]
AlarmFiles = Annotated[
    list[Path] | None, typer.Option("--alarms", help="Log of a model server with alarms of its guard (repeat it).")
]
MaybeTracking = Annotated[str, typer.Option(help="MLflow tracking URI: who served when; left out: it is not asked.")]


def open_(
    name: Annotated[str, typer.Argument(help="The registered model: NAME, or NAME@VERSION with --tracking.")],
    out: Annotated[Path, typer.Option(help="New folder of the incident.")],
    by: ByPerson,
    reason: ReasonLineOption,
    evidence: EvidenceFolders = None,
    guard: GuardFiles = None,
    alarms: AlarmFiles = None,
    tracking: MaybeTracking = "",
    model: Annotated[
        str | None, typer.Option(help="Digest of the model; left out: that of the one model in the evidence.")
    ] = None,
    trust: TrustFileOption = None,
    as_json: ResultAsJson = False,
) -> None:
    """Open an incident: collect chain, quarantine, verdicts, serve history, alarms and reports into a timeline."""
    from datetime import UTC, datetime

    from holdfast.attestation.people import SignerWords
    from holdfast.incident.step import open_incident

    plain, version = _version(name, tracking)
    record = open_incident(
        plain,
        out,
        _sources(evidence, guard, alarms, tracking, version),
        SignerWords(by, reason),
        at=datetime.now(UTC),
        model=_digest(model),
        trust=_trust(trust),
    )
    _told(record, as_json)


def show(incident: IncidentFolder, trust: TrustFileOption = None, as_json: ResultAsJson = False) -> None:
    """Print the timeline, after every record and every entry was checked; with --trust, whose closing counts."""
    from datetime import UTC, datetime

    from holdfast.incident.page import lines
    from holdfast.incident.step import PAGE, closers, read_incident
    from holdfast.incident.step import as_json as dumped

    record = read_incident(incident)[-1]
    record.path(PAGE)
    if as_json:
        typer.echo(dumped(record))
        return
    typer.echo(f"{lines(record.document)}\npage {record.folder / PAGE}")
    policy = _trust(trust)
    if policy is not None:
        typer.echo(
            f"closing signed by: {', '.join(closers(incident, policy, datetime.now(UTC))) or 'no one who counts'}"
        )


def close(
    incident: IncidentFolder,
    by: ByPerson,
    reason: ReasonLineOption,
    key: SigningKey = None,
    evidence: EvidenceFolders = None,
    guard: GuardFiles = None,
    alarms: AlarmFiles = None,
    tracking: MaybeTracking = "",
    trust: TrustFileOption = None,
    as_json: ResultAsJson = False,
) -> None:
    """Close an incident, with what was found since; with --key the closing is signed in the role approver."""
    from datetime import UTC, datetime

    from holdfast.attestation.keys import read_signer
    from holdfast.attestation.people import SignerWords
    from holdfast.incident.step import close_incident

    record = close_incident(
        incident,
        _sources(evidence, guard, alarms, tracking, None),
        SignerWords(by, reason),
        at=datetime.now(UTC),
        trust=_trust(trust),
        signer=None if key is None else read_signer(key),
    )
    _told(record, as_json)


def _sources(
    evidence: list[Path] | None,
    guards: list[Path] | None,
    alarms: list[Path] | None,
    tracking: str,
    version: int | None,
) -> "Sources":
    from holdfast.incident.step import Sources

    return Sources(tuple(evidence or ()), tuple(guards or ()), tuple(alarms or ()), tracking, version)


def _version(text: str, tracking: str) -> tuple[str, int | None]:
    name, at, number = text.rpartition("@")
    if not at:
        return text, None
    if not name or not number.isdecimal() or not tracking:
        raise typer.BadParameter(f"expected NAME, or NAME@VERSION with --tracking, found {text[:80]!r}")
    return name, int(number)


def _digest(text: str | None) -> str | None:
    import re

    if text is not None and not re.fullmatch(r"[0-9a-f]{64}", text):
        raise typer.BadParameter(f"expected 64 hexadecimal digits, found {text[:80]!r}", param_hint="--model")
    return text


def _trust(path: Path | None) -> "TrustPolicy | None":
    from holdfast.attestation.trust import read_trust

    return None if path is None else read_trust(path)


def _told(record: "Artifact[IncidentRecord]", as_json: bool) -> None:
    from holdfast.incident.step import PAGE
    from holdfast.incident.step import as_json as dumped

    if as_json:
        typer.echo(dumped(record))
        return
    found = record.document
    altered = sum(one.source == "altered" for one in found.entries)
    more = f", {altered} pieces of evidence altered" if altered else ""
    typer.echo(f"{found.state}: {len(found.entries)} entries{more}; {record.folder}@{record.digest}")
    typer.echo(f"page {record.folder / PAGE}")


app.command("open")(open_)
app.command("show")(show)
app.command("close")(close)
COMMANDS = {"incident": app}
"""What `holdfast` runs by these names."""
