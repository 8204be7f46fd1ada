"""`holdfast bundle` and `holdfast serve`: what carries a registered model into a pod, and what runs there."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from holdfast.options import TRACKING, ResultAsJson, Tracking, TrustFileOption
from holdfast.progress import say


def bundle(
    version: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    store: Annotated[Path, typer.Option(help="Folder of the store; the bundle comes to STORE/sha256/DIGEST.")],
    first: Annotated[
        bool, typer.Option("--first", help="Make it the champion too, where there is none: the version to begin with.")
    ] = False,
    trust: TrustFileOption = None,
    tracking: Tracking = TRACKING,
    as_json: ResultAsJson = False,
) -> None:
    """Copy a registered version from MLflow to a store, under the digest of its model, after every byte was checked.

    A version without a passing decision about these very bytes, or without a signature that is demanded, is refused.
    """
    from holdfast import registry
    from holdfast.attestation.demands import Demands
    from holdfast.serving.store import put

    name, asked = registry.named(version)
    if first:
        _require_no_champion(registry.aliases(tracking, name), name, asked)
    stored = put(tracking, name, asked, store, Demands.of(trust))
    if first:
        registry.promote(tracking, name, stored.version)
    if as_json:
        about = {"name": name, "version": stored.version, "digest": stored.digest, "folder": str(stored.folder)}
        typer.echo(json.dumps(about))
    else:
        say(f"bundle: {name} version {stored.version} is in {stored.folder}")


def _require_no_champion(aliases: dict[str, int], name: str, asked: int | str) -> None:
    from holdfast import registry
    from holdfast.errors import RefusedError

    number = aliases.get(asked) if isinstance(asked, str) else asked
    champion = aliases.get(registry.CHAMPION)
    if champion not in (None, number):
        raise RefusedError(f"{name}: expected no champion for --first, found version {champion}; use a rollout")


def serve(
    folder: Annotated[Path, typer.Argument(help="A folder of the store, as a pod mounts it: /mnt/models.")],
    name: Annotated[str, typer.Option(help="Name in the addresses; the model's own when left out.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; in a pod 0.0.0.0.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port of REST.", min=1, max=65535)] = 8080,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.", min=1, max=65535)] = 8081,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics at HOST:PORT/metrics.", min=1, max=65535)
    ] = None,
    trust: TrustFileOption = None,
    guard: Annotated[
        Path | None,
        typer.Option(help="Watch the clients: a JSON file: calibration, state, and the keys of a section `guard`."),
    ] = None,
) -> None:
    """Serve a bundle (V2 protocol) until SIGTERM.

    Every byte and the decision about it are checked first, and with --trust the signatures.
    """
    from holdfast.serving.predictor.__main__ import main
    from holdfast.serving.predictor.settings import read_guard, write_settings
    from holdfast.serving.store import read

    stored = read(folder)
    served = replace(stored.served(name, trust), guard=read_guard(guard) if guard is not None else None)
    for key in [key for key in os.environ if key.startswith("MLSERVER_")]:
        del os.environ[key]  # what an operator sets for models of its own would be taken for this one's
    with tempfile.TemporaryDirectory(prefix="holdfast-serve-") as work:
        spec, classes = stored.shape
        write_settings(
            Path(work), served, spec, classes, rest=http_port, grpc=grpc_port, host=host, metrics=metrics_port
        )
        code = main(Path(work))
    if code:
        raise typer.Exit(code)


COMMANDS = {"bundle": bundle, "serve": serve}
"""What `holdfast` runs by these names."""
