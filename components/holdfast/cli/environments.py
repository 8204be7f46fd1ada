"""`holdfast env`: the environments that the steps need on a machine without a container engine."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from holdfast.options import ResultAsJson
from holdfast.progress import say

Name = Literal["data", "model", "serving"]
env = typer.Typer(help="Make the environments that the steps run in on this machine.", no_args_is_help=True)


@env.callback()
def _is_a_group() -> None:
    """Keeps `create` a subcommand."""


@env.command()
def create(
    environment: Annotated[Name, typer.Argument(help="data, model or serving.")],
    path: Annotated[
        Path | None, typer.Option(help="Its folder; where `holdfast run` looks for it when left out.")
    ] = None,
    torch_backend: Annotated[
        str | None,
        typer.Option(help="Build of torch: cpu, cu130 and the like; what fits this machine when left out."),
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Make an environment from the locks that came with Holdfast, through uv; a whole one is left alone.

    Every package is checked against the lock's hashes, torch where it is the CPU build: `--torch-backend cpu`, or a
    folder of wheels with it, which PIP_FIND_LINKS names. Builds for GPUs have others.
    """
    from holdfast.environments import EnvironmentFolder
    from holdfast.environments import create as make

    place = EnvironmentFolder.usual(environment) if path is None else EnvironmentFolder(environment, path.absolute())
    made = make(place, torch_backend)
    say(f"{environment}: {'made' if made else 'there already, and whole'}")
    if path is not None:
        say(f"holdfast uses it where HOLDFAST_{environment.upper()}_PYTHON={place.python} is set")
    found = {"environment": environment, "python": str(place.python), "made": made}
    typer.echo(json.dumps(found) if as_json else str(place.python))


COMMANDS = {"env": env}
"""What `holdfast` runs by these names."""
