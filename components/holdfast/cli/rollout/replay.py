"""`holdfast replay`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import Seed
from holdfast.progress import say

if TYPE_CHECKING:
    from holdfast.serving.rollout.contract.arms import Arms


RowsFile = Annotated[Path, typer.Option(help="NPZ file whose x are network inputs, for example a bundle's replay.npz.")]
ClassCount = Annotated[int, typer.Option(help="Probabilities that an answer must have.", min=2)]
Url = Annotated[str | None, typer.Option(help="V2 address: http://HOST:PORT/v2/models/NAME/infer.")]
ArmsFile = Annotated[
    Path | None,
    typer.Option(help="Instead of --url, YAML file with champion and candidate, each url and headers: probes only."),
]
AttacksFile = Annotated[
    Path | None, typer.Option(help="NPZ file of adversarial rows (x, y, fooled) for the candidate's arm.")
]
Rate = Annotated[
    float, typer.Option(help="Client requests per second, all clients together; with --arms, probe pairs.")
]
ClientCount = Annotated[int, typer.Option(help="Connections that send them.", min=1, max=1024)]
Seconds = Annotated[float | None, typer.Option(help="End after so many seconds.")]
RequestCount = Annotated[int | None, typer.Option(help="End after so many client requests.", min=1)]
ProbeShare = Annotated[
    float, typer.Option(help="Rows sent to both arms (header x-rollout) per client request; 0: none.", min=0)
]
ProbeSocket = Annotated[
    Path | None, typer.Option(help="Unix socket of a router that obeys x-rollout there and not at --url.")
]
WarmRows = Annotated[int, typer.Option(help="Rows sent to both arms before anything is counted.", min=0)]
Timeout = Annotated[float, typer.Option(help="Seconds until an answer counts as lost.")]
TallyFile = Annotated[Path | None, typer.Option(help="File that always holds the counts so far.")]
CountsAsJson = Annotated[bool, typer.Option("--json", help="Print the last counts on standard output.")]


def replay(
    rows: RowsFile,
    classes: ClassCount,
    url: Url = None,
    arms: ArmsFile = None,
    attacks: AttacksFile = None,
    rate: Rate = 200.0,
    clients: ClientCount = 8,
    seconds: Seconds = None,
    requests: RequestCount = None,
    probe_share: ProbeShare = 0.1,
    probes: ProbeSocket = None,
    warm: WarmRows = 0,
    timeout: Timeout = 10.0,
    tally: TallyFile = None,
    seed: Seed = 0,
    as_json: CountsAsJson = False,
) -> None:
    """Send held-out rows to a served model at a rate; check and count every answer. SIGTERM ends it well."""
    from holdfast.serving.rollout.traffic import clients as traffic
    from holdfast.serving.rollout.traffic import rows as replayed
    from holdfast.serving.rollout.traffic.tally import as_json as written

    if seconds is not None and requests is not None:
        raise typer.BadParameter("expected --seconds or --requests, found both", param_hint="--seconds")
    load = traffic.LoadProfile(
        _where(url, arms), rate=rate, clients=clients, seed=seed, seconds=seconds, requests=requests,
        probe_share=probe_share, warm=warm, timeout=timeout, probes=probes,
    )  # fmt: skip
    hostile = replayed.read_attacks(attacks, rows, classes) if attacks else replayed.NO_ATTACKS
    found = traffic.replay(load, replayed.read_rows(rows, classes), hostile, tally)
    if as_json:
        typer.echo(written(found).decode().rstrip("\n"))
    else:
        say(traffic.line(found))


def _where(url: str | None, arms: Path | None) -> "str | Arms":
    """The one address, or those of both arms."""
    from holdfast.serving.rollout.contract.arms import Arms
    from holdfast.workload.yaml import read_yaml

    where = url if arms is None else read_yaml(arms, Arms)
    if where is None or (url is not None and arms is not None):
        raise typer.BadParameter(f"expected --url or --arms, found {'neither' if where is None else 'both'}")
    return where
