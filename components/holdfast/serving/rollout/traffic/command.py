"""`holdfast replay`."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.options import Seed
from holdfast.progress import say


def replay(
    rows: Annotated[Path, typer.Option(help="NPZ file whose x are network inputs, for example a bundle's replay.npz.")],
    classes: Annotated[int, typer.Option(help="Probabilities that an answer must have.", min=2)],
    url: Annotated[str | None, typer.Option(help="V2 address: http://HOST:PORT/v2/models/NAME/infer.")] = None,
    arms: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --url, YAML file with champion and candidate, each url and headers: probes only."
        ),
    ] = None,
    attacks: Annotated[
        Path | None, typer.Option(help="NPZ file of adversarial rows (x, y, fooled) for the candidate's arm.")
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Client requests per second, all clients together; with --arms, probe pairs.")
    ] = 200.0,
    clients: Annotated[int, typer.Option(help="Connections that send them.", min=1, max=1024)] = 8,
    seconds: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    requests: Annotated[int | None, typer.Option(help="End after so many client requests.", min=1)] = None,
    probe_share: Annotated[
        float, typer.Option(help="Rows sent to both arms (header x-rollout) per client request; 0: none.", min=0)
    ] = 0.1,
    probes: Annotated[
        Path | None, typer.Option(help="Unix socket of a router that obeys x-rollout there and not at --url.")
    ] = None,
    warm: Annotated[int, typer.Option(help="Rows sent to both arms before anything is counted.", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds until an answer counts as lost.")] = 10.0,
    tally: Annotated[Path | None, typer.Option(help="File that always holds the counts so far.")] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the last counts on standard output.")] = False,
) -> None:
    """Send held-out rows to a served model at a rate; check and count every answer. SIGTERM ends it well."""
    from holdfast.serving.rollout.contract.arms import Arms
    from holdfast.serving.rollout.traffic import clients as traffic
    from holdfast.serving.rollout.traffic import rows as replayed
    from holdfast.serving.rollout.traffic.tally import as_json as written
    from holdfast.workload.yaml import read_yaml

    if seconds is not None and requests is not None:
        raise typer.BadParameter("expected --seconds or --requests, found both", param_hint="--seconds")
    where = url if arms is None else read_yaml(arms, Arms)
    if where is None or (url is not None and arms is not None):
        raise typer.BadParameter(f"expected --url or --arms, found {'neither' if where is None else 'both'}")
    load = traffic.Load(
        where, rate=rate, clients=clients, seed=seed, seconds=seconds, requests=requests,
        probe_share=probe_share, warm=warm, timeout=timeout, probes=probes,
    )  # fmt: skip
    hostile = replayed.read_attacks(attacks, rows, classes) if attacks else replayed.NO_ATTACKS
    found = traffic.replay(load, replayed.read_rows(rows, classes), hostile, tally)
    if as_json:
        typer.echo(written(found).decode().rstrip("\n"))
    else:
        say(traffic.line(found))
