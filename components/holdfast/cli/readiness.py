"""`holdfast cluster check`: what a cluster lacks, in one table and one exit code."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from holdfast.wording import printable_lines

if TYPE_CHECKING:
    from holdfast.kubernetes.needs import Need

MISSING, NOT_KNOWN = 3, 4
cluster = typer.Typer(help="Look at a Kubernetes cluster before something runs there.", no_args_is_help=True)


@cluster.callback()
def _is_a_group() -> None:
    """Keeps `check` a subcommand."""


@cluster.command()
def check(
    driver: Annotated[str, typer.Option(help="What moves the traffic: kserve, seldon-v1 or seldon-v2.")],
    namespace: Annotated[str | None, typer.Option(help="Of the overlay; that of the context when left out.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How to reach it; left out: the pod's own service account.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig; its current one when left out.")] = None,
    pipelines_namespace: Annotated[str, typer.Option(help="Where Kubeflow Pipelines itself runs.")] = "kubeflow",
    tracking: Annotated[str | None, typer.Option(help="Call MLflow at this address, as it is from here.")] = None,
    prometheus: Annotated[str | None, typer.Option(help="Call Prometheus at this address, as it is from here.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Some node must have a GPU.")] = False,
    output: Annotated[Literal["table", "json"], typer.Option(help="A table for people, or JSON.")] = "table",
) -> None:
    """Say what the cluster lacks: kinds, rights, secrets, storage, GPUs, servers, images. It changes nothing.

    Exit code 0: all is there; 3: something is missing; 4: nothing is known to be missing, but not all was to be seen.
    """
    from holdfast.kubernetes.access import in_cluster
    from holdfast.kubernetes.api import Kube
    from holdfast.kubernetes.kubeconfig import from_kubeconfig
    from holdfast.kubernetes.needs import DRIVERS, ClusterToCheck, look

    if driver not in DRIVERS:
        raise typer.BadParameter(f"expected {' or '.join(DRIVERS)}, found {driver!r}", param_hint="--driver")
    access = in_cluster() if kubeconfig is None else from_kubeconfig(kubeconfig, context)
    place = ClusterToCheck(namespace or access.namespace, driver, pipelines_namespace, tracking, prometheus, gpu)
    kube = Kube(access)
    try:
        found = look(kube, place)
    finally:
        kube.close()
    typer.echo(json.dumps([asdict(one) for one in found], indent=1) if output == "json" else _table(found))
    if code := _code(found):
        raise typer.Exit(code)


def _code(found: list["Need"]) -> int:
    from holdfast.kubernetes.needs import NeedState

    states = {one.state for one in found}
    if NeedState.MISSING in states:
        return MISSING
    return NOT_KNOWN if NeedState.UNKNOWN in states else 0


def _table(found: list["Need"]) -> str:
    from holdfast.kubernetes.needs import NeedState
    from holdfast.rendering.text import columns

    counts = {state: sum(one.state == state for one in found) for state in NeedState}
    last = f"{counts[NeedState.OK]} there, {counts[NeedState.MISSING]} missing, {counts[NeedState.UNKNOWN]} not known"
    return printable_lines("\n".join([*columns([(one.state, one.name, one.detail) for one in found]), last]))


COMMANDS = {"cluster": cluster}
"""What `holdfast` runs by these names."""
