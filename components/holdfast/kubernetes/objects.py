"""Parts of Kubernetes objects: annotations, operations of a patch, conditions, times."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
"""One object of the API."""
Operation = Mapping[str, object]
"""One operation of a JSON patch (RFC 6902)."""


def pointer(*parts: str | int) -> str:
    """JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def annotations(found: Json) -> dict[str, str]:
    """Annotations of an object."""
    return dict(found["metadata"].get("annotations") or {})


def annotate(found: Json, values: Mapping[str, str | None]) -> list[Operation]:
    """Operations that give an object these annotations, or take away those that are None; only what differs."""
    here = annotations(found)
    new = {key: value for key, value in values.items() if value is not None and here.get(key) != value}
    gone = [key for key, value in values.items() if value is None and key in here]
    if new and not here:
        return [{"op": "add", "path": "/metadata/annotations", "value": new}]
    add = [{"op": "add", "path": pointer("metadata", "annotations", key), "value": new[key]} for key in new]
    return [*add, *({"op": "remove", "path": pointer("metadata", "annotations", key)} for key in gone)]


def holds(found: object, wanted: object) -> bool:
    """Whether `found` has everything of `wanted`; a server adds defaults."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(key in found and holds(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(holds, found, wanted))
    return found == wanted


def condition(found: Json, *names: str) -> bool:
    """Whether the first of these conditions that the status has is true; False where it has none of them."""
    known = {item["type"]: item["status"] for item in (found.get("status") or {}).get("conditions") or []}
    return next((known[name] == "True" for name in names if name in known), False)


def rfc3339(seconds: float) -> str:
    """Unix seconds as Kubernetes writes a time, in whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> float | None:
    """Unix seconds of a time in RFC 3339; None when the text is no time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None else None
