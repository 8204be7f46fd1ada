"""One message about how a run ended, posted to a URL: a small JSON that Slack shows, too. It never fails a run."""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from holdfast import __version__
from holdfast.artifacts.documents import Document, DriftReport, GateDecision, MonitorReport, SchemaReport
from holdfast.artifacts.inspect import verdict_of
from holdfast.errors import HoldfastError, WorkloadError
from holdfast.http_client import HttpClient
from holdfast.progress import say
from holdfast.wording import printable, without_credentials
from holdfast_gates.shortfalls import Shortfall, of_document

NOTIFY_URL = "HOLDFAST_NOTIFY_URL"
"""The environment variable with the URL in the pods of a pipeline."""
SECONDS = 10.0
"""One try takes no longer."""
WAITS = (1.0, 2.0, 4.0)
"""Seconds between the tries."""
MOST_REASONS, MOST_CHARACTERS = 10, 300
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_DONE = range(200, 300)

RunKind = Literal["ended-well", "delivery-refused", "gate-refused", "rolled-back", "inconclusive", "alarm", "failed"]
"""What a reader has to do something about: nothing, the delivery, the model, the rollout, what serves, or the run."""
_SENTENCES: dict[RunKind, str] = {
    "ended-well": "ended well",
    "delivery-refused": "the delivery was refused, and nothing was trained",
    "gate-refused": "the gate did not pass the model, and nothing was registered",
    "rolled-back": "the model was registered, and its rollout was taken back",
    "inconclusive": "the model was registered, and its rollout has no verdict",
    "alarm": "the served model has an alarm",
    "failed": "the run failed",
}


@dataclass(frozen=True)
class RunMessage:
    """What is posted."""

    kind: RunKind
    workload: str
    run: str
    """Its name, or its id on a cluster."""
    state: str
    """As the runner calls it: SUCCEEDED, FAILED, or the outcome of a local run."""
    verdict: str | None = None
    """Of the gate, or of the check that stopped the delivery."""
    reasons: tuple[str, ...] = ()
    link: str = ""
    """Where a person reads more."""

    def body(self) -> bytes:
        """JSON with bounded texts; `text` is all of it in words, as Slack reads it."""
        short = {key: bounded(value) for key, value in asdict(self).items() if key != "reasons"}
        reasons = [str(bounded(reason)) for reason in self.reasons[:MOST_REASONS]]
        return json.dumps({"version": 1, **short, "reasons": reasons, "text": self._text(reasons)}).encode()

    def _text(self, reasons: Sequence[str]) -> str:
        head = f"{bounded(self.workload)}: {_SENTENCES[self.kind]} (run {bounded(self.run)}, {bounded(self.state)})"
        lines = [head, *(f"- {reason}" for reason in reasons), *([str(bounded(self.link))] if self.link else [])]
        return _for_slack("\n".join(lines))


def refusal(document: Document, *, workload: str, run: str, link: str) -> RunMessage:
    """What is posted where a delivery or a model was refused, or a served one has an alarm, by the document.

    Raises:
        WorkloadError: a document that refuses nothing.
    """
    if isinstance(document, MonitorReport):
        found = (document.reason, document.advice)
        return RunMessage("alarm", workload, run, "ALARM", verdict_of(document), found, link)
    if not isinstance(document, GateDecision | SchemaReport | DriftReport):
        raise WorkloadError(
            f"--report: expected a decision, or a report of schema, drift or monitor, found {type(document).__name__}"
        )
    kind: RunKind = "gate-refused" if isinstance(document, GateDecision) else "delivery-refused"
    reasons = tuple(map(reason_of, of_document(document)))
    return RunMessage(kind, workload, run, "REFUSED", verdict_of(document), reasons, link)


def of_status(status: str, *, workload: str, run: str, link: str) -> RunMessage:
    """What is posted at the end of a run, from the final status (JSON) that KFP hands to an exit handler."""
    found = _status(status)
    state = str(found.get("state") or "UNKNOWN")
    kind: RunKind = "ended-well" if state == "SUCCEEDED" else "failed"
    error = found.get("error")
    why = str(error.get("message") or "") if isinstance(error, dict) else ""
    return RunMessage(kind, workload, run, state, None, (why,) if why else (), link)


def post(url: str, message: RunMessage) -> bool:
    """Posts the message; tries again where that may help. What goes wrong is one line without the URL's secrets."""
    return deliver(url, message.body(), {})


def deliver(url: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Posts JSON, as `post` does; whether it was taken."""
    host = urlsplit(url).hostname or "?"
    problem = "no try"
    for wait in (*WAITS, None):
        answer = _try(url, body, headers)
        if answer is None:
            return True
        again, problem = answer
        if not again or wait is None:
            break
        time.sleep(wait)
    say(f"notify: {host} did not take the message: {problem}; the run is not affected")
    return False


def url_of(text: str) -> str:
    """The URL that an option gives: itself, or `env:NAME` for the variable that holds it.

    Raises:
        WorkloadError: no http or https URL, or the variable is not set.
    """
    name = text.removeprefix("env:") if text.startswith("env:") else None
    url = text if name is None else os.environ.get(name, "")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        where = f"the variable {name}" if name else "--notify"
        raise WorkloadError(f"{where}: expected an http or https URL without a user in it, found something else")
    return url


def _try(url: str, body: bytes, more: Mapping[str, str]) -> tuple[bool, str] | None:
    """Whether another try may help, and what went wrong; None: it was taken."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": "application/json", "User-Agent": f"holdfast/{__version__}", **more}
    try:
        client = HttpClient(f"{parts.scheme}://{parts.netloc}", seconds=SECONDS, max_bytes=2**16)
        try:
            status = client.exchange("POST", path, headers, body).status
        finally:
            client.close()
    except HoldfastError:
        return True, f"no whole answer within {SECONDS:g} s, or none at all"
    except ValueError:
        return False, "its URL is none"
    return None if status in _DONE else (status in _AGAIN, f"status {status}")


def reason_of(one: Shortfall) -> str:
    """One line: the check, what it measured and required, what was found."""
    return f"{one.sentence}: {one.found}" if one.found else one.sentence


def _status(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def bounded(value: object) -> object:
    """A text on one line, without credentials, of at most 300 characters; what is no text as it is."""
    if not isinstance(value, str):
        return value
    flat = printable(without_credentials(" ".join(value.split())))
    return flat if len(flat) <= MOST_CHARACTERS else flat[: MOST_CHARACTERS - 1] + "…"


def _for_slack(text: str) -> str:
    """Slack makes mentions and links of what is in angle brackets."""
    return re.sub("[&<>]", lambda found: {"&": "&amp;", "<": "&lt;", ">": "&gt;"}[found[0]], text)
