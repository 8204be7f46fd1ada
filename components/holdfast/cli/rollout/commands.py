"""`holdfast rollout`, for operators: look at a rollout, step in, and ask what served when; and `holdfast replay`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.rollout.candidate import start_next
from holdfast.cli.rollout.guard import watch_promoted
from holdfast.cli.rollout.replay import replay
from holdfast.errors import RolloutError
from holdfast.options import TRACKING, ResultAsJson, Tracking
from holdfast.progress import say
from holdfast.serving.rollout.command import RECORD_FOLDER, ModelName, RecordFolder, app

if TYPE_CHECKING:
    from holdfast.cli.rollout.view import View
    from holdfast.kubernetes.api import Kube
    from holdfast.serving.rollout.cluster.remote import Remote
    from holdfast.serving.rollout.cluster.target import Target
    from holdfast.serving.rollout.engine.controller import Ask

ACT_SECONDS = 120.0
"""How long a command waits for a driver that runs: taking the candidate out retries for ever, this does not."""

RecordFolderOrTarget = Annotated[Path | None, typer.Option("--out", help=RECORD_FOLDER)]
TargetFile = Annotated[
    Path | None,
    typer.Option("--target", help="On a cluster, instead of --out: the target file; from any machine with access."),
]
OperatorReason = Annotated[str, typer.Option("--reason", help="For the record, and for whoever asks later.")]


app.command(name="next")(start_next)
app.command(name="guard")(watch_promoted)


@app.command()
def status(out: RecordFolderOrTarget = None, target: TargetFile = None, as_json: ResultAsJson = False) -> None:
    """Show its state: weight, counts, e-values, what it waits for, and its driver."""
    if target is not None:
        from holdfast.serving.rollout.cluster import remote

        _print_remote(remote.see(*_reached(out, target)), as_json)
        return
    from holdfast.cli.rollout import view

    seen = view.see(_required(out), _state(_required(out)))
    typer.echo(view.as_json(seen) if as_json else view.text(seen))


@app.command()
def watch(out: RecordFolder) -> None:
    """The same as a live table; without a terminal, one line per change."""
    from holdfast.cli.rollout import view
    from holdfast.cli.rollout.table import watch as look

    typer.echo(view.text(look(out, _state(out))))


@app.command()
def abort(
    reason: OperatorReason, out: RecordFolderOrTarget = None, target: TargetFile = None, as_json: ResultAsJson = False
) -> None:
    """Take the candidate out of traffic and end the rollout, which is no verdict on the candidate."""
    if target is not None:
        from holdfast.serving.rollout.cluster import remote

        seen = remote.abort(*_reached(out, target), reason, ACT_SECONDS, lambda line: say(f"rollout: {line}"))
        _print_remote(seen, as_json)
        return
    from holdfast.serving.rollout.engine.controller import Ask

    local = _ask(_required(out), Ask.ABORT, reason)
    if local.record is not None and local.record.document.outcome == "promoted":
        raise RolloutError(f"{out}: cannot abort: the candidate is already promoted")
    _print(local, as_json)


@app.command()
def promote(out: RecordFolder, reason: OperatorReason, as_json: ResultAsJson = False) -> None:
    """Approve the promotion of a rollout whose plan asks for one; its proof is still needed."""
    from holdfast.serving.rollout.engine.controller import Ask

    seen = _ask(out, Ask.APPROVE, reason)
    if seen.record is not None and seen.record.document.outcome != "promoted":
        raise RolloutError(f"{out}: cannot promote: {_line(seen)}")
    _print(seen, as_json)


@app.command()
def history(
    name: ModelName,
    tracking: Tracking = TRACKING,
    out: Annotated[
        Path | None, typer.Option(help="A rollout's --out: what MLflow could not be told about it is told first.")
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Which version served when, and how every rollout ended."""
    from holdfast.registry import history as periods
    from holdfast.registry.client import require_library
    from holdfast.serving.rollout import registry_worker

    require_library(tracking)
    registry_worker.hand_in(out.absolute().parent if out is not None else Path.cwd())
    found = registry_worker.history(tracking, name)
    if as_json:
        typer.echo(json.dumps(periods.as_dict(found.notes, found.champion)))
    else:
        typer.echo(periods.text(name, found.notes, found.champion))


@app.command()
def watchdog(
    namespace: Annotated[str | None, typer.Option(help="Where the rolled-out objects are; left out: our own.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Left out: the pod's own service account.")] = None,
    seconds: Annotated[float, typer.Option(help="Keep looking for so long; 0 looks once.", min=0)] = 0.0,
) -> None:
    """Take out every candidate on a cluster whose driver is gone; run it from a CronJob of its own."""
    from holdfast.kubernetes.access import in_cluster
    from holdfast.kubernetes.api import Kube
    from holdfast.kubernetes.kubeconfig import from_kubeconfig
    from holdfast.serving.rollout.cluster.watchdog import watch as look

    access = in_cluster() if kubeconfig is None else from_kubeconfig(kubeconfig)
    count = look(Kube(access), namespace or access.namespace, seconds, lambda line: say(f"watchdog: {line}"))
    say(f"watchdog: {count} candidates taken out")


def _required(out: Path | None) -> Path:
    if out is None:
        raise typer.BadParameter("expected --out, or --target for a cluster, found neither", param_hint="--out")
    return out


def _reached(out: Path | None, target: Path) -> "tuple[Target, Kube]":
    if out is not None:
        raise typer.BadParameter("expected --out or --target, found both", param_hint="--target")
    from holdfast.serving.rollout.cluster.open import reach
    from holdfast.serving.rollout.cluster.target import read_target

    read = read_target(target)
    return read, reach(read)


def _print_remote(seen: "Remote", as_json: bool) -> None:
    from holdfast.cli.rollout.remote import text

    typer.echo(json.dumps(seen.as_dict()) if as_json else text(seen))


def _ask(out: Path, ask: "Ask", reason: str) -> "View":
    """Leaves the request and returns what came of it."""
    from holdfast.cli.rollout import view
    from holdfast.serving.rollout.engine.controller import Ask, OperatorRequest
    from holdfast.serving.rollout.engine.requests import ask as leave

    state = _state(out)
    seen = view.see(out, state)
    if seen.status is None or seen.driver_status is view.DriverStatus.ENDED:
        raise RolloutError(f"{out}: no rollout runs: {_line(seen)}")
    if ask is Ask.APPROVE and not seen.status.asks_approval:
        raise RolloutError(f"{out}: nothing waits for an approval; this plan has `approval: false`")
    leave(state, OperatorRequest(ask, reason))
    if seen.driver_status is view.DriverStatus.GONE:
        raise RolloutError(
            f"{out}: its driver is dead, so this is not acted on now; its lease ends and the weight is taken back, and "
            "the next start with this --out does first what you asked for"
        )
    if ask is Ask.ABORT:
        return view.wait(out, state, lambda seen: False, ACT_SECONDS)
    return view.wait(out, state, lambda seen: seen.status is not None and seen.status.approved, ACT_SECONDS)


def _print(seen: "View", as_json: bool) -> None:
    from holdfast.cli.rollout import view

    if seen.driver_status is view.DriverStatus.GONE:
        raise RolloutError(f"{seen.out}: the driver died before it could act; found: {view.line(seen)}")
    if as_json:
        typer.echo(view.as_json(seen))
    else:
        say(f"rollout: {view.line(seen)}")


def _line(seen: "View") -> str:
    from holdfast.cli.rollout import view

    return view.line(seen)


def _state(out: Path) -> Path:
    """Where the rollout of `out` keeps what it needs."""
    from holdfast.serving.rollout.engine.journal import state_folder

    return state_folder(out)


COMMANDS = {"replay": replay}
"""What `holdfast` runs by these names; those of `holdfast rollout` are added to its own list."""
