"""What an exercise expected, what happened and when; and the report about it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.artifacts.documents import GameDayFinding, GameDayReport, Verdict
from holdfast.artifacts.folder import Artifact, save
from holdfast.rendering.blocks import Facts, PageSection, TableBlock
from holdfast.rendering.page import Article, render

PAGE = "report.html"


@dataclass
class Scoreboard:
    """Notes what an exercise finds, with the seconds since its attack began."""

    clock: Callable[[], float] = time.monotonic
    findings: list[GameDayFinding] = field(default_factory=list)
    detected: float | None = None
    safe: float | None = None
    _began: float | None = None

    def begin(self) -> None:
        """The attack, or the fault, begins now."""
        self._began = self.clock()

    @property
    def seconds(self) -> float | None:
        """Since it began; None: what is noted was read from a record afterwards."""
        return None if self._began is None else round(self.clock() - self._began, 3)

    def expect(self, what: str, found: object, *, held: bool) -> None:
        """Notes an expectation, and whether it was as expected."""
        self.findings.append(GameDayFinding(what=what, found=str(found), seconds=self.seconds, held=held))

    def detect(self, what: str, found: object, *, held: bool) -> None:
        """The same; where it held, the attack is known from now on."""
        self.expect(what, found, held=held)
        if held and self.detected is None:
            self.detected = self.seconds

    def secure(self, what: str, found: object, *, held: bool, seconds: float | None = None) -> None:
        """The same; where it held, clients are safe from now on, or were so many seconds after the beginning."""
        self.expect(what, found, held=held)
        if held:
            self.safe = self.seconds if seconds is None else seconds


def report(board: Scoreboard, name: str, *, seed: int, stated: float) -> GameDayReport:
    """Pass where every expectation held, the attack was detected, and clients were safe in time.

    Where it was not detected, or clients were never safe, the time is that of the last finding, and the verdict fail.
    """
    last = max((one.seconds or 0.0 for one in board.findings), default=0.0)
    detected, safe = board.detected, board.safe
    good = all(one.held for one in board.findings) and detected is not None and safe is not None and safe <= stated
    return GameDayReport(
        exercise=name,
        seed=seed,
        findings=tuple(board.findings),
        detected=last if detected is None else detected,
        safe=last if safe is None else safe,
        stated=stated,
        verdict=Verdict.PASS if good else Verdict.FAIL,
    )


def write(found: GameDayReport, out: Path) -> Artifact[GameDayReport]:
    """The report as an artifact, with its page."""
    return save(out, found, {PAGE: page(found).encode()})


def page(found: GameDayReport) -> str:
    """One HTML file that needs nothing else."""
    rows = tuple((one.seconds, one.what, one.found, one.held) for one in found.findings)
    table = TableBlock(("seconds", "expected", "found", "held"), rows, numeric=(0,))
    times = (
        ("seed", found.seed),
        ("detected, s", found.detected),
        ("safe, s", found.safe),
        ("stated, s", found.stated),
    )
    article = Article(
        "game-day",
        f"Game day: {found.exercise}",
        (PageSection("findings", "What was expected, and what happened", (table,)),),
        outcome=found.verdict.value,
        facts=Facts(times),
    )
    return render(f"Game day: {found.exercise}", [article], motto="", footer="")
