"""What people sign, outside of every pipeline: that a version may serve, and that a check is waived for a model."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import TRACKING, WAIVERS, KeyName, ResultAsJson, Tracking, TrustFileOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.registry.approvals import ListedApproval

_DIGEST = re.compile(r"[0-9a-f]{64}")
approvals = typer.Typer(help="Who approved which registered version.", no_args_is_help=True)


@approvals.callback()
def _is_a_group() -> None:
    """Keeps `list` a subcommand."""


def approve(
    version: Annotated[str, typer.Argument(help="NAME@VERSION, such as digits@3.")],
    by: Annotated[str, typer.Option(help="Who approves.")],
    reason: Annotated[str, typer.Option(help="What was looked at, in a line.")],
    key: KeyName,
    trust: TrustFileOption = None,
    attestations: Annotated[
        Path | None, typer.Option(help="Keep it in this folder, too: for a server that reads no MLflow.")
    ] = None,
    tracking: Tracking = TRACKING,
    as_json: ResultAsJson = False,
) -> None:
    """Sign that a registered version may serve, after every byte and, with --trust, every signature was checked.

    A statement by the role approver about the model and the gate's decision, in a tag of the version.
    """
    from holdfast.attestation import store
    from holdfast.attestation.demands import Demands
    from holdfast.attestation.keys import read_signer
    from holdfast.attestation.people import SignerWords
    from holdfast.registry.approvals import approve as sign

    name, number = name_and_version(version)
    if number is None:
        raise typer.BadParameter(f"expected NAME@VERSION, found {version!r}")
    made = sign(tracking, name, number, SignerWords(by, reason), read_signer(key), Demands.of(trust))
    if attestations is not None:
        store.keep(attestations, made.bundle)
    found = {"name": name, "version": number, "model": made.model, "by": by}
    shown = f"{name} version {number}: approved by {by}, model {made.model[:16]}…"
    typer.echo(json.dumps(found) if as_json else shown)


def waive(
    check: Annotated[str, typer.Argument(help="A check of the policy that the model did not pass.")],
    model: Annotated[str, typer.Option(help="Digest of the model: 64 hexadecimal digits, as decision.md has it.")],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why it is accepted, in a line.")],
    until: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="When it ends, UTC; a date: its first moment."),
    ],
    key: KeyName,
    out: Annotated[
        Path, typer.Option(help="Folder of waivers, which `holdfast run` and `gate --waivers` read.")
    ] = WAIVERS,
    as_json: ResultAsJson = False,
) -> None:
    """Sign that a check is waived for one model, for a while; the gate counts it where its policy lets it.

    A statement by the role approver. The check stays failed in every report, with the waiver next to it; when it ends,
    the model is no longer registered, rolled out or served.
    """
    from holdfast.attestation import store
    from holdfast.attestation.envelope import sign_payload
    from holdfast.attestation.keys import read_signer
    from holdfast.attestation.waivers import WaiverTerms, waiver_statement

    _require_a_check(check)
    if not _DIGEST.fullmatch(model):
        raise typer.BadParameter(f"expected 64 hexadecimal digits, found {model[:80]!r}", param_hint="--model")
    terms = WaiverTerms(check, owner, reason, until.replace(tzinfo=UTC))
    statement = waiver_statement(model, terms, datetime.now(UTC))
    path = store.keep(out, sign_payload(statement.payload(), read_signer(key)))
    shown = (
        f"{path}: {check} is waived for model {model[:16]}… until {statement.predicate['until']}; run the gate again"
    )
    typer.echo(json.dumps({"path": str(path), **statement.predicate}) if as_json else shown)


def _require_a_check(name: str) -> None:
    """Refuses a name that no policy can ask for, which would never count."""
    from importlib import import_module

    from holdfast.artifacts.documents import GateDecision
    from holdfast.steps import writer

    known = import_module(f"{writer(GateDecision).package}.rules").RULES
    if name not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}, found {name!r}", param_hint="CHECK")


@approvals.command("list")
def list_them(
    model: Annotated[str, typer.Argument(help="NAME, or NAME@VERSION.")],
    trust: TrustFileOption = None,
    tracking: Tracking = TRACKING,
    as_json: ResultAsJson = False,
) -> None:
    """List the approvals of a model's versions; with --trust, whether each signature counts.

    What the policy asks besides, `holdfast verify models:/NAME/VERSION --trust` checks.
    """
    from dataclasses import asdict

    from holdfast.attestation.trust import read_trust
    from holdfast.registry.approvals import list_approvals
    from holdfast.wording import printable_lines

    name, number = name_and_version(model)
    policy = None if trust is None else read_trust(trust)
    found = list_approvals(tracking, name, number, policy, datetime.now(UTC))
    text = json.dumps([asdict(one) for one in found]) if as_json else printable_lines(_table(model, found))
    typer.echo(text)


def name_and_version(text: str) -> tuple[str, int | None]:
    """NAME and VERSION of NAME@VERSION; a name alone has no version."""
    name, at, number = text.rpartition("@")
    if not at:
        return text, None
    if not name or not number.isdecimal():
        raise typer.BadParameter(f"expected NAME@VERSION, found {text!r}")
    return name, int(number)


def _table(model: str, found: "Sequence[ListedApproval]") -> str:
    from holdfast.rendering.text import paragraphs

    if not found:
        return f"{model}: no approvals"
    head = ("version", "approved by", "at", "key", "state", "reason")
    rows = [(str(one.version), one.approver, one.at, one.key[:12] or "–", one.state, one.reason) for one in found]
    return paragraphs((head, *rows))


COMMANDS = {"approve": approve, "waive": waive, "approvals": approvals}
"""What `holdfast` runs by these names."""
