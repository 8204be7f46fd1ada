"""`holdfast request`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import Config, Out, maybe_ref, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.documents import RetrainRequest
    from holdfast.artifacts.folder import Artifact


@step_command
def request(
    report: Annotated[str, typer.Option(help="Report of the monitor: FOLDER or FOLDER@DIGEST.")],
    out: Out,
    config: Config = "{}",
    previous: Annotated[str | None, typer.Option(help="The request before, whose cooldown must be over.")] = None,
) -> "Artifact[RetrainRequest]":
    """Ask for a retraining because of a report of the monitor; it starts nothing by itself.

    The request before is the newest in the section's folder `kept`, where none is named.
    """
    from holdfast.monitor.request.step import request as step
    from holdfast.workload.schema import MonitorConfig

    section = read_section(config, MonitorConfig, lambda workload: workload.monitor)
    kept = None if section.kept is None else Path(section.kept)
    made = step(ref(report), out, previous=maybe_ref(previous), cooldown_days=section.cooldown_days, kept=kept)
    typer.echo("next: `holdfast run --because` or `holdfast submit --because` with this request", err=True)
    return made


COMMANDS = {"request": request}
"""What `holdfast` runs by these names."""
