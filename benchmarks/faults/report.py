"""All rows of the faults' benchmark, and the table in docs/reliability.md."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.faults import bundles, live, races, virtual, watching
from benchmarks.faults.races import Raced
from benchmarks.faults.scene import Played
from benchmarks.table import RESULTS, ROOT, Row, at_least, at_most, cells, shown

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
OTHERS = "<!-- targets: begin -->", "<!-- targets: end -->"
BESIDE = {
    "rollouts": ("candidate answering only errors", "5 % errors", "healthy candidate"),
    "rollouts_under_load": ("",),
    "latency": ("",),
    "hostile": ("",),
    "serving": ("",),
}
"""Of the benchmarks beside this one, the rows that begin so are about a rollout's reliability."""
REQUESTS, MOST_MORE = 300_000, 20
HOW = "real processes, `make faults`"


def everything(quick: bool) -> list[Row]:
    """Virtual time first, on all cores; then real processes, one scene after the other."""
    found = virtual.rows(virtual.run_all(quick))
    with TemporaryDirectory(prefix="hf-") as folder:
        made = bundles.make(Path(folder))
        return [*found, *_small(made, Path(folder), quick), *live_rows(_play(made, Path(folder), quick), quick)]


def _small(made: bundles.Bundles, folder: Path, quick: bool) -> list[Row]:
    """Races for bytes, beside a controller that watches: neither needs a quiet machine."""
    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watching.watch, made, folder / "watching", 10.0 if quick else 65.0)
        loads = _loads(made, folder, 50 if quick else 1000, "ours")
        naive = _loads(made, folder, 50 if quick else 1000, "naive")
        servers = races.race_servers(made, folder / "servers", 2 if quick else 24)
        return [*_race_rows(loads, naive, servers), *_watch_rows(watched.result())]


def _loads(made: bundles.Bundles, folder: Path, count: int, how: str) -> Raced:
    (folder / how).mkdir()
    return races.race_loads(made, folder / how, count, how)


def _race_rows(loads: Raced, naive: Raced, servers: Raced) -> list[Row]:
    counts = ", ".join(f"{r.races} {n}: {r.served} served" for n, r in (("loads", loads), ("server starts", servers)))
    return [
        at_most(
            "unverified bytes served while a hostile writer swaps the files",
            loads.unverified + servers.unverified,
            0,
            f"{HOW}; {counts}, the others refused",
        ),
        shown(
            "the same races against hash-by-name, then open-by-name",
            naive.unverified,
            f"unverified of {naive.served} served of {naive.races}: what the races can find",
        ),
    ]


def _watch_rows(watched: watching.Watched) -> list[Row]:
    how = f"`holdfast rollout start`, {watched.seconds:.0f} s of watching at 4 looks a second"
    return [
        at_most("controller: peak RSS, MB", watched.peak_mb, 60, f"{how}; VmHWM of its process alone"),
        at_most("controller: CPU while watching, share of a core", watched.share, 0.02, how),
    ]


def _play(made: bundles.Bundles, folder: Path, quick: bool) -> list[Played]:
    played = []
    for number, scene in enumerate(live.scenes(made, quick)):
        played.append(live.play(scene, folder / f"{number}-scene"))
    for number in range(0 if quick else MOST_MORE):
        if _counted(played) < REQUESTS:
            played.append(live.play(live.more(made, number), folder / f"{len(played)}-scene"))
    return played


def _counted(played: Sequence[Played]) -> int:
    return sum(one.sent for one in played if not one.excused)


def live_rows(played: Sequence[Played], quick: bool) -> list[Row]:
    """What the scenes came to."""
    counted = [one for one in played if not one.excused]
    sent, lost = _counted(played), sum(one.lost for one in counted)
    real = sum(one.sent for one in counted if one.real)
    seconds = sorted(one.seconds_to_zero for one in played if one.seconds_to_zero is not None)
    wrong = [f"{one.name}: {'; '.join(one.wrong)}" for one in played if one.wrong]
    bound = f"95 % upper bound {3 / max(sent, 1):.1e}" if not lost else "see the scenes"
    split = f"{real} answered by MLServer with a model, {sent - real} by upstreams without one"
    return [
        at_least("client requests over all live runs", sent, 1000 if quick else REQUESTS, f"{HOW}; {split}"),
        at_most("client requests lost on the stable path over all live runs", lost, 0, f"of {sent}; {bound}"),
        at_most("decision to weight 0, p99, seconds", _at(0.99, seconds), 2, f"{HOW}; {len(seconds)} rollbacks"),
        shown("decision to weight 0, p50, seconds", _at(0.5, seconds), f"the same {len(seconds)} rollbacks"),
        at_most("live scenes in which a promise did not hold", len(wrong), 0, _scenes(played), note=" / ".join(wrong)),
    ]


def _scenes(played: Sequence[Played]) -> str:
    return f"{len(played)} scenes: " + ", ".join(f"{one.name}: {one.end}" for one in played)


def _at(share: float, values: Sequence[float]) -> float:
    return values[min(int(share * len(values)), len(values) - 1)] if values else float("nan")


def write_page(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Lays the table of faults between the markers of the page anew."""
    _lay(page, (BEGIN, END), table(rows))


def write_others(page: Path = PAGE) -> None:
    """Lays the other benchmarks' rows about rollouts between their markers anew, as far as they were run."""
    _lay(page, OTHERS, table([row for name in BESIDE for row in _kept(name) if row.target.startswith(BESIDE[name])]))


def _kept(name: str) -> list[Row]:
    path = RESULTS / f"{name}.json"
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]] if path.exists() else []


def _lay(page: Path, markers: tuple[str, str], content: str) -> None:
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(markers[0])
    _, _, after = rest.partition(markers[1])
    page.write_text(f"{before}{markers[0]}\n{content}\n{markers[1]}{after}", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ["| what | required | measured | met | how |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(cells(row) for row in rows)])
