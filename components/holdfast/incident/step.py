"""Collects what is known about a model, and keeps it: a folder of records `0001`, `0002`, each from the one before.

What cannot be read, or has other bytes than were pinned, is an entry of its own: an attacker who alters evidence must
not be able to stop the people who look at it.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from holdfast.artifacts.documents import GateDecision, IncidentRecord, Model, MonitorReport, RolloutRecord
from holdfast.artifacts.folder import Artifact, load, load_any, save, strict_json
from holdfast.artifacts.inspect import artifacts_below
from holdfast.artifacts.regular import open_regular, read_at_most
from holdfast.attestation import store
from holdfast.attestation.envelope import read_bundle, sign_payload
from holdfast.attestation.keys import Signer
from holdfast.attestation.people import SignerWords
from holdfast.attestation.statement import CLOSING, about, made_at, parse_statement, stamp
from holdfast.attestation.trust import TrustPolicy
from holdfast.errors import ArtifactError, HoldfastError, InputError, IntegrityError
from holdfast.incident.chain import Happening, chained, short
from holdfast.incident.page import page
from holdfast.incident.words import words
from holdfast.steps import made_from

PAGE = "incident.html"
MOST_ARTIFACTS, MOST_ALARMS, MOST_ENTRIES = 1_000, 10_000, 20_000
_LOG_BYTES = 64 * 2**20
_VERSION = re.compile(r"[0-9]{4}")
_TIME = "%Y-%m-%dT%H:%M:%S"
_ALARM = b"holdfast_guard_alarm"
_LOG, _SHOWN = "log.jsonl", 9
_TOLD = ("transition", "page", "blind")
"""Lines of a rollout's log that belong in a timeline."""


@dataclass(frozen=True)
class Sources:
    """Where to look."""

    evidence: tuple[Path, ...] = ()
    """Folders with artifacts: a run, a bundle, reviews, reports of the monitor, records of rollouts."""
    guards: tuple[Path, ...] = ()
    """SQLite files of guards."""
    alarms: tuple[Path, ...] = ()
    """JSON lines, such as a server's standard error."""
    tracking: str = ""
    """MLflow; empty: not asked."""
    version: int | None = None
    """The registered version that is downloaded and looked at."""


def open_incident(
    name: str,
    out: Path,
    sources: Sources,
    who: SignerWords,
    *,
    at: datetime,
    model: str | None,
    trust: TrustPolicy | None,
) -> Artifact[IncidentRecord]:
    """Writes the first record of an incident to `out`, which must be new.

    Args:
        name: of the registered model.
        out: the incident's folder.
        sources: where to look.
        who: who opens it, and why.
        at: now.
        model: digest of the model; None: that of the version in `sources`, else of the one model that a gate's decision
            in the evidence is about, else of the one model in it.
        trust: whose signatures count; None: times in statements are claims.

    Raises:
        InputError: `out` holds an incident, no model is named and the evidence has none or several, or nothing can be
            read where `sources` point.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: expected a new folder for an incident, found files")
    found, models = _collected(name, sources, at, trust)
    digest = model or models.only(out)
    opened = Happening("person", f"opened by {who.by}: {who.reason}", stamp(at), "noted", digest)
    return _write(out, _record(name, digest, None, [*found, opened], closed=False))


def close_incident(
    folder: Path,
    sources: Sources,
    who: SignerWords,
    *,
    at: datetime,
    trust: TrustPolicy | None,
    signer: Signer | None,
) -> Artifact[IncidentRecord]:
    """Writes the last record of an incident, with what `sources` have besides; signed where a key is given.

    Raises:
        InputError: it is closed already, or nothing can be read where `sources` point.
        IntegrityError: its records do not follow on one another.
    """
    before = read_incident(folder)[-1]
    document = before.document
    if document.state == "closed":
        raise InputError(f"{folder}: cannot close the incident: it is closed already")
    found, _ = _collected(document.name, sources, at, trust)
    closed = Happening("person", f"closed by {who.by}: {who.reason}", stamp(at), "noted", document.model)
    record = _write(folder, _record(document.name, document.model, before, [*found, closed], closed=True))
    if signer is not None:
        claim = {"by": who.by, "reason": who.reason, "timeCreated": stamp(at)}
        statement = about(f"incident/{document.name}", record.digest, CLOSING, claim)
        store.keep(folder / store.ATTESTATIONS, sign_payload(statement.payload(), signer))
    return record


def read_incident(folder: Path) -> list[Artifact[IncidentRecord]]:
    """The records of an incident, oldest first, after they were found to follow on one another.

    Raises:
        ArtifactError: none, or one that is no record.
        IntegrityError: a record was changed, left out, or is about another model; or the last one was signed and is
            gone.
    """
    places = sorted(path for path in folder.glob("*") if _VERSION.fullmatch(path.name)) if folder.is_dir() else []
    if not places:
        raise ArtifactError(f"{folder}: expected the folder of an incident, found none")
    records = [load(place, IncidentRecord) for place in places]
    for number, (place, record) in enumerate(zip(places, records, strict=True), start=1):
        before = records[number - 2] if number > 1 else None
        if place.name != f"{number:04d}" or not _follows(before, record.document):
            raise IntegrityError(f"{place}: expected a record that follows on the one before, found another")
    gone = set(store.read_all(folder / store.ATTESTATIONS)) - {record.digest for record in records}
    if gone:
        raise IntegrityError(f"{folder}: expected the record {min(gone)[:12]}… that was signed, found none")
    return records


def closers(folder: Path, trust: TrustPolicy, now: datetime) -> list[str]:
    """Who signed that the incident is closed, with the key, for each signature that counts."""
    last = read_incident(folder)[-1]
    bundles = store.read_all(folder / store.ATTESTATIONS).get(last.digest, [])
    signed, _ = trust.accepted(bundles, now)
    return [f"{one.statement.predicate.get('by')} ({one.signer[:12]}…)" for one in signed]


# --- records --------------------------------------------------------------------------------------------------------


def _record(
    name: str, model: str, before: Artifact[IncidentRecord] | None, new: Sequence[Happening], *, closed: bool
) -> IncidentRecord:
    entries = chained(name, model, before.document.entries if before else (), new)
    if len(entries) > MOST_ENTRIES:
        raise InputError(f"{name}: expected at most {MOST_ENTRIES} entries of an incident, found {len(entries)}")
    inputs = {"model": model} | ({"incident": before.digest} if before else {})
    return IncidentRecord(name=name, model=model, state="closed" if closed else "open", entries=entries, inputs=inputs)


def _write(folder: Path, record: IncidentRecord) -> Artifact[IncidentRecord]:
    number = 1 + sum(bool(_VERSION.fullmatch(path.name)) for path in folder.glob("*"))
    return save(folder / f"{number:04d}", record, {PAGE: page(record).encode()})


def _follows(before: Artifact[IncidentRecord] | None, record: IncidentRecord) -> bool:
    if before is None:
        return "incident" not in record.inputs
    held = before.document
    return (
        record.inputs.get("incident") == before.digest
        and (record.name, record.model) == (held.name, held.model)
        and record.entries[: len(held.entries)] == held.entries
    )


# --- sources --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Models:
    """Digests of models: a run has its own and the champion's."""

    held: set[str] = field(default_factory=set)
    """All among the artifacts."""
    judged: set[str] = field(default_factory=set)
    """Those that a gate's decision among them is about."""
    registered: set[str] = field(default_factory=set)
    """That of the version that was named."""

    def only(self, out: Path) -> str:
        """The one that the incident is about.

        Raises:
            InputError: there is none, or there are several.
        """
        for some in (self.registered, self.held & self.judged, self.held):
            if len(some) == 1:
                return next(iter(some))
        found = f"{len(self.held)}: {', '.join(sorted(self.held)[:_SHOWN])}" if self.held else "none"
        raise InputError(f"{out}: expected one model in the evidence, found {found}; name it with --model")


def _collected(
    name: str, sources: Sources, now: datetime, trust: TrustPolicy | None
) -> tuple[list[Happening], _Models]:
    """What the sources have, and the models among the artifacts."""
    found: list[Happening] = []
    models = _Models()
    for folder in sources.evidence:
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder with artifacts, found none")
        times = _times(folder, now, trust)
        artifacts = list(_artifacts(folder, found))
        models.held.update(one.digest for one in artifacts if isinstance(one.document, Model))
        decisions = (one.document for one in artifacts if isinstance(one.document, GateDecision))
        models.judged.update(digest for one in decisions if (digest := made_from(one, Model)))
        for one in artifacts:
            found += _about(one, times)
    for path in sources.guards:
        found += _guard(path)
    for path in sources.alarms:
        found += _alarms(path)
    if sources.tracking:
        found += _registry(name, sources, models.registered)
    return found, models


def _artifacts(folder: Path, broken: list[Happening]) -> Iterator[Artifact[Any]]:
    for number, place in enumerate(sorted(artifacts_below(folder))):
        if number >= MOST_ARTIFACTS:
            raise InputError(f"{folder}: expected at most {MOST_ARTIFACTS} artifacts, found more; name folders in it")
        try:
            yield load_any(place)
        except HoldfastError as error:
            broken.append(Happening("altered", str(error)))


def _about(found: Artifact[Any], times: Mapping[str, Happening]) -> Iterator[Happening]:
    signed = times.get(found.digest)
    at, clock = (signed.at, signed.clock) if signed else (_own_time(found.document), "noted")
    what = f"{words(found.document)} ({found.folder.name})"
    yield Happening("artifact", what, at, clock if at else "none", found.digest)
    for name in found.document.files:
        try:
            found.path(name)
        except HoldfastError as error:
            yield Happening("altered", str(error), digest=found.digest)
    if isinstance(found.document, RolloutRecord) and _LOG in found.document.files:
        yield from _moves(found)


def _own_time(document: object) -> str | None:
    return document.last if isinstance(document, MonitorReport) else None


def _times(folder: Path, now: datetime, trust: TrustPolicy | None) -> dict[str, Happening]:
    """Digest -> when its statement was signed; with a trust policy only statements that count."""
    bundles = store.read_all(folder / store.ATTESTATIONS) or store.read_all(folder.parent / store.ATTESTATIONS)
    texts = [text for found in bundles.values() for text in found]
    if trust is not None:
        counted, _ = trust.accepted(texts, now)
        return {one.statement.digest: Happening("artifact", "-", stamp(one.at), "signed") for one in counted}
    found = {}
    for text in texts:
        try:
            statement = parse_statement(read_bundle(text, "a bundle").payload, "a bundle")
        except HoldfastError:
            continue
        if (at := made_at(statement)) is not None:
            found[statement.digest] = Happening("artifact", "-", stamp(at), "claimed")
    return found


def _moves(record: Artifact[RolloutRecord]) -> Iterator[Happening]:
    """The moves and pages of a rollout by its own log."""
    try:
        lines = record.open(_LOG).read().splitlines()
    except HoldfastError:
        return
    version = record.document.candidate_version
    for facts in _objects(lines):
        if facts.get("event") in _TOLD:
            state = f"{facts.get('state')} at weight {facts.get('weight')}"
            what = f"rollout of version {version}, {facts['event']}: {state}, {facts.get('reason')}"
            yield Happening("rollout", what, _utc(facts.get("time")), "noted", record.digest)


def _guard(path: Path) -> Iterator[Happening]:
    """Clients with an alarm, from the guard's own file, which is only read."""
    open_regular(path, "the state of a guard").close()
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5)) as file:
            model = file.execute("SELECT digest FROM model").fetchone()
            asked = "SELECT name, alarmed_by, rows, at FROM clients WHERE alarmed_by != '' ORDER BY at LIMIT ?"
            rows = file.execute(asked, (MOST_ALARMS,)).fetchall()
            for name, by, count, at in rows:
                what = f"client {name or 'all new clients together'}: alarm by {by} after {int(count)} rows"
                yield Happening("guard", what, _utc(float(at)), "noted", str(model[0]) if model else None)
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise InputError(f"{path}: expected the state of a guard, found {short(str(error))[:120]}") from None


def _alarms(path: Path) -> Iterator[Happening]:
    """The alarm events of guards among the lines of a file; other lines are left out."""
    lines = [line for line in read_at_most(path, _LOG_BYTES, "a log").splitlines() if _ALARM in line]
    if len(lines) > MOST_ALARMS:
        raise InputError(f"{path}: expected at most {MOST_ALARMS} alarms, found {len(lines)}")
    for facts in _objects(lines):
        if facts.get("event") == _ALARM.decode():
            model = str(facts.get("model", ""))
            what = f"client {facts.get('client')}: alarm by {facts.get('detector')} after {facts.get('rows')} rows"
            digest = model if re.fullmatch(r"[0-9a-f]{64}", model) else None
            yield Happening("guard", what, _utc(facts.get("at")), "noted", digest)


def _registry(name: str, sources: Sources, registered: set[str]) -> Iterator[Happening]:
    """Who served when, and how rollouts ended; a version's bundle, where one is named."""
    from holdfast import registry
    from holdfast.registry.history import read_ledger

    for note in read_ledger(sources.tracking, name).notes:
        day = f" (game day: {note.game_day})" if note.game_day else ""
        before = f"version {note.champion_before} served" if note.champion_before else "none served"
        what = f"version {note.version} {note.outcome}, before it {before}: {note.reason}{day}"
        yield Happening("registry", what, _utc(note.ended), "noted", note.model)
    if sources.version is None:
        return
    try:
        with registry.fetched(sources.tracking, name, sources.version) as bundle:
            for one in [] if bundle is None else bundle.documents():
                if isinstance(one.document, Model):
                    registered.add(one.digest)
                what = f"{words(one.document)} (registered version {sources.version})"
                yield Happening("artifact", what, digest=one.digest)
    except IntegrityError as error:
        yield Happening("altered", str(error))


def _objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects among lines."""
    for line in lines:
        try:
            found = strict_json(line, "a line")
        except ArtifactError:
            continue
        if isinstance(found, dict):
            yield found


def _utc(moment: object) -> str | None:
    """UTC, whole seconds; None for what is no moment."""
    try:
        if isinstance(moment, str):
            return stamp(datetime.fromisoformat(moment))
        return stamp(datetime.fromtimestamp(float(moment), UTC)) if isinstance(moment, float | int) else None
    except (ValueError, OverflowError, OSError):
        return None


def as_json(record: Artifact[IncidentRecord]) -> str:
    """The last record for machines, with its digest and the place of its page."""
    facts = record.document.model_dump(mode="json")
    return json.dumps({"digest": record.digest, "page": str(record.folder / PAGE), **facts})
