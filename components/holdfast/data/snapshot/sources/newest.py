"""The rule "newest complete delivery": which of the files that a listing has are read."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.data.snapshot.sources.stores import DeliveryStore, ListedFile
from holdfast.errors import InputError
from holdfast.wording import printable, quoted
from holdfast.workload.naming import NamePattern, Order, moment
from holdfast.workload.schema import NewestConfig

MAX_MANIFEST = 2**20
_AHEAD = timedelta(days=1)
"""What the clocks of two machines, in any time zone, may differ."""
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")


@dataclass(frozen=True)
class FoundDelivery:
    """A delivery that may be read: its files, the training rows first."""

    order: Order
    files: tuple[ListedFile, ...]
    missing: str | None = None
    """Why it is not complete by its listing; None: nothing is missing."""
    manifest: ListedFile | None = None


def candidates(store: DeliveryStore, rule: NewestConfig, now: datetime) -> list[FoundDelivery]:
    """The deliveries of a store that the rule's pattern fits, the newest first.

    Args:
        store: with the deliveries.
        rule: how they are named.
        now: UTC, without a zone: nothing is dated later.

    Raises:
        InputError: two of one date and number, one from the future, a name that is a link, or a place that cannot be
            listed.
    """
    patterns = {key: NamePattern(text) for key, text in _texts(rule).items()}
    found = {key: _by_order(entries, store) for key, entries in _listed(store, patterns).items()}
    ordered = sorted(found["name"], reverse=True)
    _check_dates(ordered[:1], patterns["name"], now, store)
    return [_candidate(order, found) for order in ordered]


def promised(text: str, address: str) -> Mapping[str, str]:
    """Name -> SHA-256, of a manifest as `sha256sum` writes it.

    Raises:
        InputError: another form, or a name twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        entry = _LINE.fullmatch(line)
        if entry is None or entry[2].removeprefix("./") in found:
            raise InputError(
                f"{address}:{number}: expected a SHA-256, two spaces and a name, each name once, found "
                f"{printable(line)[:60]!r}"
            )
        found[entry[2].removeprefix("./")] = entry[1].lower()
    return found


def _texts(rule: NewestConfig) -> dict[str, str]:
    texts = {"name": rule.name, "test": rule.test, "marker": rule.marker, "manifest": rule.manifest}
    return {key: text for key, text in texts.items() if text is not None}


def _listed(store: DeliveryStore, patterns: Mapping[str, NamePattern]) -> dict[str, list[tuple[Order, ListedFile]]]:
    """By key of the rule, the entries that its pattern fits, with their order."""
    found: dict[str, list[tuple[Order, ListedFile]]] = {key: [] for key in patterns}
    for entry in _walk(store, list(patterns.values()), ""):
        for key, pattern in patterns.items():
            order = pattern.order(entry.path)
            if order is not None:
                found[key].append((order, entry))
    return found


def _walk(store: DeliveryStore, patterns: Sequence[NamePattern], folder: str) -> Iterator[ListedFile]:
    """Everything that may fit; folders to which no pattern leads are not listed."""
    for entry in store.entries(folder):
        leads = any(pattern.leads_to(entry.path) for pattern in patterns)
        if entry.kind == "other" and (leads or any(one.order(entry.path) is not None for one in patterns)):
            raise InputError(
                f"{store.address(entry.path)}: expected a file or a folder, found a link or something else; "
                "a delivery is read from its own place"
            )
        if entry.kind == "folder" and leads:
            yield from _walk(store, patterns, entry.path)
        elif entry.kind == "file":
            yield entry


def _by_order(entries: Iterable[tuple[Order, ListedFile]], store: DeliveryStore) -> dict[Order, ListedFile]:
    found: dict[Order, ListedFile] = {}
    for order, entry in entries:
        if order in found:
            two = quoted((found[order].path, entry.path))
            raise InputError(f"{store.address('')}: expected one file for each date and number, found {two}")
        found[order] = entry
    return found


def _check_dates(orders: Iterable[Order], pattern: NamePattern, now: datetime, store: DeliveryStore) -> None:
    for order in orders:
        dated = moment(order, pattern.directives)
        if dated is not None and dated > now + _AHEAD:
            raise InputError(
                f"{store.address('')}: expected deliveries up to today, found one of {dated:%Y-%m-%d %H:%M}; "
                "it would be the newest until then"
            )


def _candidate(order: Order, found: Mapping[str, Mapping[Order, ListedFile]]) -> FoundDelivery:
    files = [found[key].get(order) for key in ("name", "test") if key in found]
    there = tuple(one for one in files if one is not None)
    last = {key: found[key].get(order) for key in ("marker", "manifest") if key in found}
    return FoundDelivery(order, there, _missing(len(files), there, last), last.get("manifest"))


def _missing(wanted: int, files: Sequence[ListedFile], last: Mapping[str, ListedFile | None]) -> str | None:
    if len(files) < wanted:
        return "its held-out rows are not there"
    empty = next((one for one in files if one.size == 0), None)
    if empty is not None:
        return f"{empty.path} is empty"
    for key, entry in last.items():
        if entry is None:
            return f"it has no {key}"
        late = [one for one in files if _after(one, entry)]
        if key == "marker" and late:
            return f"{late[0].path} was written after its marker"
    return None


def _after(one: ListedFile, marker: ListedFile) -> bool:
    return one.modified is not None and marker.modified is not None and one.modified > marker.modified
