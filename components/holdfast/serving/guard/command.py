"""`holdfast calibrate`, and `holdfast guard` for the person who reads an alarm."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import Config, ModelRef, Out, ResultAsJson, SnapshotRef, read_section, ref, step_command
from holdfast.wording import printable

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def calibrate(model: ModelRef, snapshot: SnapshotRef, config: Config, out: Out, settings: "Compute") -> "Artifact[Any]":
    """Measure what the guard of a served model compares queries with."""
    from holdfast.serving.guard.step import calibrate as step
    from holdfast.workload.schema import GuardConfig

    section = read_section(config, GuardConfig, lambda workload: workload.guard)
    return step(ref(model), ref(snapshot), out, config=section, settings=settings)


app = typer.Typer(
    help="The clients of a served model who have an alarm. An alarm stays, through restarts, until it is taken back.",
    no_args_is_help=True,
)

State = Annotated[Path, typer.Argument(help="The guard's file: guard-DIGEST.db in the folder `state` of its settings.")]


@app.command("list")
def list_alarmed(state: State, as_json: ResultAsJson = False) -> None:
    """List the clients with an alarm, the latest first."""
    from holdfast.serving.guard.store import SqliteStore

    found = [
        {"client": name, "detector": detector, "rows": rows, "last": f"{datetime.fromtimestamp(at, UTC):%FT%TZ}"}
        for name, detector, rows, at in SqliteStore(state).listed()
    ]
    if as_json:
        typer.echo(json.dumps(found))
        return
    lines = [f"{one['last']}  {one['detector']:6} {one['rows']:>8}  {_shown(str(one['client']))}" for one in found]
    typer.echo("\n".join(lines) or "no client has an alarm")


@app.command()
def release(
    state: State,
    client: Annotated[str, typer.Option(help="The name as `list` and the alarm have it, such as header:alice.")] = "",
    new_clients: Annotated[bool, typer.Option("--new-clients", help="The alarm of all new clients together.")] = False,
) -> None:
    """Take a client's alarm back: it begins again as a new one, also in a server that runs."""
    from holdfast.errors import WorkloadError
    from holdfast.serving.guard.store import SqliteStore

    if bool(client) == new_clients:
        raise typer.BadParameter("expected --client or --new-clients, one of both")
    if not SqliteStore(state).release(client):
        raise WorkloadError(f"{state}: expected a client {client or 'for all new ones'}, found none of that name")
    typer.echo(f"released: {_shown(client)}")


def _shown(name: str) -> str:
    return printable(name) or "all new clients together"


COMMANDS = {"calibrate": calibrate, "guard": app}
"""What `holdfast` runs by these names."""
