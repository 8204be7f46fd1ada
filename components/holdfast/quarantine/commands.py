"""`holdfast quarantine`: list, show, release and drop what a scan set aside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from holdfast.options import ResultAsJson, reviews_folder
from holdfast.wording import printable

if TYPE_CHECKING:
    from holdfast.artifacts.documents import Decision
    from holdfast.quarantine.step import HeldRow, Quarantine

app = typer.Typer(
    help="Review the rows that a scan set aside. A row stays out of every later run until it is released, and for good "
    "when it is dropped. Rows are known by their values and label, in any delivery.",
    no_args_is_help=True,
)

Scan = Annotated[Path, typer.Option(help="Scan artifact, for example .holdfast/runs/NAME/steps/scan.")]
SnapshotFolder = Annotated[Path | None, typer.Option(help="Its snapshot; left out: the folder `snapshot` next to it.")]
Reviews = Annotated[Path | None, typer.Option(help="Folder of the reviews; .holdfast/reviews/NAME when left out.")]
RowIds = Annotated[str | None, typer.Option(help="Row ids, for example 1,5-9.")]
Every = Annotated[bool, typer.Option("--all", help="Every row in quarantine.")]
By = Annotated[str, typer.Option(help="Who decides.")]
Reason = Annotated[str, typer.Option(help="The reason, for a later reader.")]


@app.command("list")
def list_rows(
    scan: Scan, snapshot: SnapshotFolder = None, reviews: Reviews = None, as_json: ResultAsJson = False
) -> None:
    """List the rows in quarantine, most suspicious first, with their places, detectors and decisions."""
    held = _held(scan, snapshot)
    decided = _decided(held, reviews)
    if as_json:
        typer.echo(json.dumps([_facts(row, decided.get(row.digest)) for row in held.rows]))
        return
    lines = [printable(_line(row, decided.get(row.digest))) for row in held.rows]
    typer.echo("\n".join(lines) or "no row is in quarantine")
    _note("{} suspect rows stay because they were released", held.scan.document.released)
    _note("{} rows were set aside by an earlier scan and are undecided", held.scan.document.undecided)


def _note(text: str, rows: tuple[int, ...]) -> None:
    if rows:
        typer.echo(f"{text.format(len(rows))}: {', '.join(map(str, rows[:20]))}{', ...' if len(rows) > 20 else ''}")


@app.command()
def show(
    scan: Scan,
    row: Annotated[int, typer.Option(help="Row id.", min=0)],
    snapshot: SnapshotFolder = None,
    reviews: Reviews = None,
    as_json: ResultAsJson = False,
) -> None:
    """Show one row: its values or a small picture, and each detector's score."""
    from holdfast.quarantine.draw import cells, picture

    held = _held(scan, snapshot)
    found, document = held.row(row), held.snapshot.document
    decision = _decided(held, reviews).get(found.digest)
    if as_json:
        values = found.values if isinstance(found.values, dict) else found.values.tolist()
        typer.echo(json.dumps(_facts(found, decision) | {"scores": found.scores, "values": values}))
        return
    body = (
        cells(found.values) if isinstance(found.values, dict) else picture(found.values, document.lower, document.upper)
    )
    scores = "\n".join(f"{name:20} {score:.4f}" for name, score in sorted(found.scores.items()))
    typer.echo(f"{printable(_line(found, decision))}\nrow digest {found.digest}\n\n{body}\n\n{scores}")


def _deciding(decision: Literal["release", "drop"]) -> Callable[..., None]:
    """The command that decides rows in this way."""

    def command(
        scan: Scan,
        by: By,
        why: Reason,
        rows: RowIds = None,
        every: Every = False,
        snapshot: SnapshotFolder = None,
        reviews: Reviews = None,
        as_json: ResultAsJson = False,
    ) -> None:
        _decide(decision, _held(scan, snapshot), _chosen(rows, every), (by, why), reviews, as_json)

    return command


app.command("release", help="Say that rows are fine: they train again, and no scan sets them aside again.")(
    _deciding("release")
)
app.command("drop", help="Say that rows stay out for good: the next snapshot leaves them out.")(_deciding("drop"))


@app.command()
def hold(scan: Scan, snapshot: SnapshotFolder = None, reviews: Reviews = None, as_json: ResultAsJson = False) -> None:
    """Keep every undecided row out of later runs; `holdfast run` does so by itself, other runs need it once a scan."""
    from holdfast.artifacts.folder import canonical_json
    from holdfast.quarantine.step import hold as hold_rows

    held = _held(scan, snapshot)
    review = hold_rows(held, _folder(held, reviews))
    if review is None:
        typer.echo("null" if as_json else "no row is in quarantine")
        return
    if as_json:
        typer.echo(canonical_json(review.document).decode().rstrip("\n"))
        return
    typer.echo(
        f"{len(review.document.undecided)} rows are undecided and stay out; review {review.folder}@{review.digest}"
    )
    _say_next(review.folder.parent)


def _decide(
    decision: Literal["release", "drop"],
    held: "Quarantine",
    rows: str | None,
    who: tuple[str, str],
    reviews: Path | None,
    as_json: bool,
) -> None:
    from holdfast.artifacts.folder import canonical_json
    from holdfast.quarantine.decide import DONE
    from holdfast.quarantine.step import Verdicts, decide

    review, ids = decide(held, Verdicts(decision, rows, *who), _folder(held, reviews))
    if as_json:
        typer.echo(canonical_json(review.document).decode().rstrip("\n"))
        return
    typer.echo(
        f"{DONE[decision]} {len(ids)} row{'s' * (len(ids) != 1)} by {who[0]}; review {review.folder}@{review.digest}"
    )
    _say_next(review.folder.parent)


def _say_next(reviews: Path) -> None:
    typer.echo(
        f"next: `holdfast run` here reads {reviews}; elsewhere, name it in the workload file (data: {{review: FOLDER}})"
        if reviews == reviews_folder(reviews.name)
        else f"next: data: {{review: {reviews}}} in the workload file",
        err=True,
    )


def _chosen(rows: str | None, every: bool) -> str | None:
    if every == (rows is not None):
        raise typer.BadParameter("give either --rows or --all", param_hint="--rows")
    return rows


def _held(scan: Path, snapshot: Path | None) -> "Quarantine":
    from holdfast.quarantine.step import read_quarantine

    return read_quarantine(scan, snapshot)


def _folder(held: "Quarantine", reviews: Path | None) -> Path:
    return reviews or reviews_folder(held.snapshot.document.name)


def _decided(held: "Quarantine", reviews: Path | None) -> "dict[str, Decision]":
    from holdfast.quarantine.reviews import newest_review

    newest = newest_review(_folder(held, reviews))
    return {} if newest is None else {entry.row: entry for entry in newest.document.entries}


def _line(row: "HeldRow", decision: "Decision | None") -> str:
    from holdfast.quarantine.decide import DONE
    from holdfast.quarantine.draw import shown

    said = f"{DONE[decision.decision]} by {shown(decision.by)}: {shown(decision.why)}" if decision else "open"
    where = f"{shown(row.place):14} " if row.place else ""
    by = f"{row.detectors:20} " if row.detectors else ""
    return f"row {row.id:<8} {where}label {shown(row.label):16} score {row.scores['score']:.4f}  {by}{said}"


def _facts(row: "HeldRow", decision: "Decision | None") -> dict[str, Any]:
    return {
        "row": row.id,
        "digest": row.digest,
        "label": row.label,
        "score": row.scores["score"],
        "place": row.place,
        "detectors": row.detectors,
        "decision": None if decision is None else decision.model_dump(mode="json"),
    }


COMMANDS = {"quarantine": app}
"""What `holdfast` runs by these names."""
