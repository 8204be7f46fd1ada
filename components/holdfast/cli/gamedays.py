"""`holdfast gameday`: an exercise against a local deployment, scored."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import STATE, AsJson, Seed, finish

if TYPE_CHECKING:
    from holdfast.artifacts.documents import GameDayFinding


def gameday(
    name: Annotated[str | None, typer.Argument(help="Which exercise; --list has them.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder that the report becomes; .holdfast/gamedays/NAME when left out.")
    ] = None,
    seed: Seed = 0,
    every: Annotated[bool, typer.Option("--list", help="List the exercises and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Practise an incident against a local deployment: was it detected, and when were clients safe?

    Exit code 0: every expectation held within the stated time; 3: one did not.
    """
    from holdfast.artifacts.documents import Verdict
    from holdfast_pipelines.gameday.exercises import EXERCISES
    from holdfast_pipelines.gameday.play import play

    if every:
        typer.echo("\n".join(f"{key:18}{one.about}; safe within {one.stated:g} s" for key, one in EXERCISES.items()))
        return
    if name is None or name not in EXERCISES:
        raise typer.BadParameter(f"expected one of {', '.join(EXERCISES)}, found {str(name)[:60]!r}")
    made = play(name, out or Path(STATE) / "gamedays" / name, seed=seed)
    found = made.document
    for one in found.findings:
        typer.echo(shown(one), err=True)
    times = f"detected after {found.detected:.1f} s, safe after {found.safe:.1f} s (stated {found.stated:g} s)"
    typer.echo(f"{name}: {found.verdict.value}; {times}; {made.folder / 'report.html'}", err=True)
    finish(made, None, None, as_json)
    if found.verdict is not Verdict.PASS:
        raise typer.Exit(3)


def shown(one: "GameDayFinding") -> str:
    """An expectation as a line."""
    when = f"{one.seconds:8.1f} s" if one.seconds is not None else " " * 10
    return f"{'held' if one.held else 'NOT HELD':9}{when}  {one.what}: {one.found}"


COMMANDS = {"gameday": gameday}
"""What `holdfast` runs by these names."""
