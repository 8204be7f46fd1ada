"""An incident for people: as lines for a terminal, and as one HTML file that needs nothing else."""

from collections import Counter

from holdfast.artifacts.documents import IncidentRecord
from holdfast.incident.chain import by_time

_HEAD = ("when", "clock", "source", "what", "artifact")
NO_TIME = "not known"


def lines(record: IncidentRecord) -> str:
    """The timeline as a table of text."""
    from holdfast.rendering.text import paragraphs

    rows = [
        (one.at or NO_TIME, one.clock, one.source, one.what, one.digest[:12] if one.digest else "")
        for one in by_time(record.entries)
    ]
    first = (f"incident of {record.name}, model {record.model[:12]}…: {record.state}",)
    return paragraphs((first,), (_HEAD, *rows), ((f"last link {record.entries[-1].link}",),))


def page(record: IncidentRecord) -> str:
    """The timeline, what is altered, and the digests."""
    from holdfast.rendering.blocks import Facts, PageSection, TableBlock, code
    from holdfast.rendering.page import Article, render

    rows = tuple(
        (one.at or NO_TIME, one.clock, one.source, one.what, code(one.digest[:12]) if one.digest else "")
        for one in by_time(record.entries)
    )
    digests = sorted({one.digest: one.what for one in record.entries if one.digest}.items())
    found = Counter(one.source for one in record.entries)
    note = (
        "Clock: signed, in a statement whose signature counts; claimed, in one that was not checked; noted, in a log "
        "or a registry. Entries are linked: the last link is that of all."
    )
    article = Article(
        "incident",
        f"Incident of {record.name}",
        (
            PageSection("timeline", "Timeline", (TableBlock(_HEAD, rows, note=note),)),
            PageSection(
                "digests", "Digests", (TableBlock(("digest", "of"), tuple((code(one), of) for one, of in digests)),)
            ),
        ),
        alert=_alert(found["altered"]),
        outcome=record.state,
        facts=Facts(
            (
                ("model", record.model[:12]),
                ("entries", len(record.entries)),
                *sorted(found.items()),
                ("last link", record.entries[-1].link[:16]),
            )
        ),
    )
    return render(f"Incident: {record.name}", [article], motto="", footer="")


def _alert(altered: int) -> str:
    if not altered:
        return ""
    return f"{altered} pieces of evidence cannot be read or have other bytes than were pinned: see the lines `altered`."
