"""The command that the pods of a pipeline run to post how the run ended."""

from typing import Annotated

import typer


def notify(
    workload: Annotated[str, typer.Option(help="Its name.")],
    run: Annotated[str, typer.Option(help="Name or id of the run.")],
    status: Annotated[str, typer.Option(help="The final status (JSON) that an exit handler is given.")] = "",
    report: Annotated[
        str | None, typer.Option(help="Gate decision, or report of schema or drift, that refused: FOLDER@DIGEST.")
    ] = None,
    link: Annotated[str, typer.Option(help="Where a person reads more, up to the run's id.")] = "",
) -> None:
    """Post how a run ended to the URL in HOLDFAST_NOTIFY_URL; succeeds also where it is not taken."""
    from holdfast.artifacts.folder import Ref, load_any
    from holdfast_pipelines.notify import NOTIFY_URL, of_status, post, refusal, url_of

    url, place = url_of(f"env:{NOTIFY_URL}"), f"{link}{run}" if link else ""
    if report is None:
        post(url, of_status(status, workload=workload, run=run, link=place))
        return
    document = load_any(Ref.parse(report)).document
    post(url, refusal(document, workload=workload, run=run, link=place))


COMMANDS = {"notify": notify}
"""What `holdfast` runs by these names."""
