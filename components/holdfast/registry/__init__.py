"""MLflow: where models that passed are kept, and which one serves.

MLflow is an index, never an authority: whoever may write to it can change bytes, tags and aliases. What `fetch` gives
was hashed after the download, and belongs to a gate decision with the verdict pass about those very bytes.

* `client`   a client of MLflow that answers, or fails within a bounded time with one line
* `bundle`   what a registered version holds, and the check of every byte
* `version`  versions and aliases: find, download, promote
* `entry`    registering one model with its evidence
* `releases` which version is the one to serve, signed
* `approvals` who approved a version, signed
* `notes`    how the rollouts of a version ended, kept as its tags
* `history`  which version served when, from those notes
"""

from holdfast.registry.bundle import (
    BUNDLE,
    DECISION,
    EVIDENCE,
    MANIFEST,
    PACKAGE,
    PACKAGED,
    PINS,
    RETRAIN_REQUEST,
    Bundle,
    check_package,
    package_digest,
    pins_of,
    read_bundle,
    seal_bundle,
)
from holdfast.registry.client import library, public, quiet, set_up, sqlite_file
from holdfast.registry.entry import MAX_DESCRIPTION, EnclosingRun, Entry, Point, register, shorten
from holdfast.registry.releases import release, require_in_turn, require_released
from holdfast.registry.version import (
    CANDIDATE,
    CHAMPION,
    DECIDED,
    PREVIOUS,
    Registered,
    Version,
    aliases,
    fetch,
    fetched,
    find,
    metrics,
    named,
    promote,
    set_alias,
    tag,
    take_back,
    versions,
)

__all__ = [
    "BUNDLE", "CANDIDATE", "CHAMPION", "DECIDED", "DECISION", "EVIDENCE", "MANIFEST", "MAX_DESCRIPTION", "PACKAGE",
    "PACKAGED", "PINS", "PREVIOUS", "RETRAIN_REQUEST", "Bundle", "EnclosingRun", "Entry", "Point", "Registered",
    "Version", "aliases", "check_package", "fetch", "fetched", "find", "library", "metrics", "named", "package_digest",
    "pins_of",
    "promote", "public", "quiet", "read_bundle", "register", "release", "require_in_turn", "require_released",
    "seal_bundle", "set_alias", "set_up", "shorten", "sqlite_file", "tag", "take_back",
    "versions",
]  # fmt: skip
