"""Whose verdicts count: an allow-list of policies, by the digest of their content. A name proves nothing.

A policy that ships also counts with the thresholds that a workload overrides, and with checks that it has more: the
decision lists each of them, and one more check lets no other model pass. Light:
the policies that ship are read as the JSON that `holdfast schemas` makes of them, so that no server imports the gate.
"""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from holdfast.artifacts.documents import GateDecision
from holdfast.artifacts.folder import Artifact, read_bounded

POLICY = "policy.json"
"""File of a decision: the policy in effect."""
MAX_POLICY_BYTES = 2**20
LIST = "policies.json"
"""File with the policies that ship: name -> the policy."""
SHIPPED: Literal["shipped"] = "shipped"
"""Entry of an allow-list: every policy that ships."""
_OUTSIDE_CHECKS = "policy"
"""Where a policy records what a workload overrides of its own keys."""


@dataclass(frozen=True)
class PolicyList:
    """The policies whose verdicts count."""

    digests: frozenset[str] = frozenset()
    shipped: bool = True
    """Whether those that ship count, too."""

    def has(self, digest: str, text: bytes | None) -> bool:
        """Whether the policy in effect of this digest counts; `text`: its JSON, where that is at hand."""
        if digest in self.digests:
            return True
        return self.shipped and (digest in shipped_digests() or (text is not None and _overrides(digest, text)))

    def has_that_of(self, decision: Artifact[GateDecision]) -> bool:
        """Whether the policy that decided counts."""
        pin = decision.document.files.get(POLICY)
        text = None if pin is None or pin.bytes > MAX_POLICY_BYTES else decision.open(POLICY).read()
        return self.has(decision.document.policy, text)


def canonical(policy: Mapping[str, Any]) -> str:
    """The JSON of a policy whose digest is the policy's."""
    return json.dumps(policy, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def policy_digest(text: str) -> str:
    """SHA-256 of a policy's canonical JSON."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def shipped_digests() -> dict[str, str]:
    """Digest -> name of each policy that ships."""
    return {policy_digest(canonical(policy)): name for name, policy in _shipped().items()}


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    here = Path(__file__).resolve()
    # In the source tree it is generated under manifests, in a wheel it lies here.
    places = here.with_name(LIST), *(root / "manifests" / "schemas" / LIST for root in here.parents[3:4])
    found: dict[str, dict[str, Any]] = json.loads(read_bounded(next(p for p in places if p.is_file()), 2**20))
    return found


def _overrides(digest: str, text: bytes) -> bool:
    """Whether this is a policy that ships, but for the overrides that it records itself."""
    try:
        policy = json.loads(text)
        if not isinstance(policy, dict) or policy_digest(canonical(policy)) != digest:
            return False
    except (ValueError, RecursionError):
        return False
    base = _shipped().get(str(policy.get("name")))
    return base is not None and _overridden(base, policy.get("overridden"), policy.get("checks")) == policy


def _overridden(base: Mapping[str, Any], overrides: object, found: object) -> dict[str, Any] | None:
    """The policy with these overrides of its checks, and those of `found` that it has not; None: it could not be."""
    if not isinstance(found, dict):
        return None
    if not isinstance(overrides, dict) or not all(isinstance(values, dict) for values in overrides.values()):
        return None
    made = deepcopy(dict(base))
    for check, values in overrides.items():
        if check == _OUTSIDE_CHECKS:
            if {*values} != {"allow_new_contract"}:
                return None
            made.update(values)
        elif check in made["checks"]:
            made["checks"][check].update(values)
        elif isinstance(found.get(check), dict):
            made["checks"][check] = found[check]
        else:
            return None
    return {**made, "overridden": overrides}
