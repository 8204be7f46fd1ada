"""The command that the pods of a pipeline run to post how the run ended, and what a monitor found."""

from typing import Annotated

import typer


def notify(
    workload: Annotated[str, typer.Option(help="Its name.")],
    run: Annotated[str, typer.Option(help="Name or id of the run.")],
    status: Annotated[str, typer.Option(help="The final status (JSON) that an exit handler is given.")] = "",
    report: Annotated[
        str | None,
        typer.Option(help="Gate decision, or report of schema, drift or monitor, that refused: FOLDER@DIGEST."),
    ] = None,
    link: Annotated[str, typer.Option(help="Where a person reads more, up to the run's id.")] = "",
    failures: Annotated[bool, typer.Option("--failures", help="Post nothing about a run that ended well.")] = False,
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Send a monitor's report to the Alertmanager in HOLDFAST_ALERTMANAGER_URL.")
    ] = False,
    every: Annotated[str, typer.Option(help="How often reports are sent: an alert lasts three times as long.")] = "1h",
) -> None:
    """Post how a run ended to the URL in HOLDFAST_NOTIFY_URL; succeeds also where it is not taken."""
    from holdfast.artifacts.folder import Ref, load_any
    from holdfast_pipelines.notify import NOTIFY_URL, of_status, post, refusal, url_of

    place = f"{link}{run}" if link else ""
    if alerts:
        _send_alerts(report, place, every)
    elif report is None:
        message = of_status(status, workload=workload, run=run, link=place)
        if not failures or message.kind != "ended-well":
            post(url_of(f"env:{NOTIFY_URL}"), message)
    else:
        document = load_any(Ref.parse(report)).document
        post(url_of(f"env:{NOTIFY_URL}"), refusal(document, workload=workload, run=run, link=place))


def _send_alerts(report: str | None, link: str, every: str) -> None:
    import os
    from datetime import UTC, datetime, timedelta

    from holdfast.artifacts.documents import MonitorReport
    from holdfast.artifacts.folder import Ref, load
    from holdfast_pipelines.alerts import send
    from holdfast_pipelines.cluster import seconds_of

    if report is None:
        raise typer.BadParameter("expected --report with it", param_hint="--alerts")
    send(
        load(Ref.parse(report), MonitorReport).document,
        os.environ,
        datetime.now(UTC),
        timedelta(seconds=seconds_of(every)),
        link,
    )


COMMANDS = {"notify": notify}
"""What `holdfast` runs by these names."""
