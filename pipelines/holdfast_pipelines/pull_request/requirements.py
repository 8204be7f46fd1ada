"""What the base branch requires of the head, and what a pull request changes of it.

A pull request may change how a model is made. What is required of the model (thresholds, threat model, how it is
measured) comes from the base branch, so that no pull request loosens its own gate without being seen.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from holdfast.errors import WorkloadError
from holdfast.workload.schema import GateConfig, Workload
from holdfast_gates.policy import Policy, at_tier, packaged, resolve
from holdfast_pipelines.pull_request.report import ChangedKey

PolicyFrom = Literal["base", "head"]
TIER: Literal["pr"] = "pr"
"""The tier of attacks of every pull request, so that it fits into minutes."""
FREE = ("modality", "data", "network", "schema_", "train", "decision")
"""What a pull request may change: how a model is made, and of what."""
REQUIRED = tuple(name for name in Workload.model_fields if name not in FREE)
"""What the base branch's workload decides: all else, a section of tomorrow too."""
MOST = 100
_ABSENT = "not given"
_LONGEST = 300


@dataclass(frozen=True)
class Placed:
    """A workload as a commit has it."""

    workload: Workload
    folder: Path
    """Of the workload file."""

    @property
    def policy(self) -> Policy:
        """The policy in effect."""
        return resolve(self.workload.gate, self.folder)


def required_by(base: Placed | None, head: Placed, policy_from: PolicyFrom) -> Placed:
    """The head's workload under the requirements of the base branch, if it has the workload, at the tier `pr`.

    Raises:
        WorkloadError: the requirements do not fit the head's workload, or its policy cannot be read.
    """
    if base is None or policy_from == "head":
        return _at_tier(head)
    values = {name: getattr(base.workload, name) for name in REQUIRED}
    merged = head.workload.model_copy(update={**values, "gate": _located(base)})
    try:
        checked = Workload.model_validate(merged.model_dump(mode="json", by_alias=True))
    except ValidationError as error:
        raise WorkloadError(
            f"the base branch's requirements do not fit the head's workload: {error.errors()[0]['msg']}; "
            "--policy-from head judges it by its own"
        ) from None
    return _at_tier(Placed(checked, head.folder))


def own_requirements(placed: Placed) -> Placed:
    """A workload by its own requirements, at the tier `pr`."""
    return _at_tier(placed)


def changed_requirements(base: Placed, head: Placed) -> tuple[ChangedKey, ...]:
    """What the head changes of the requirements, the policy's content included."""
    mine, theirs = _requirements(base), _requirements(head)
    return _changed(mine, theirs)


def changed_data(base: Placed, head: Placed) -> tuple[ChangedKey, ...]:
    """What the head changes of the data and its schema, as the workload file names them."""
    one, other = (_sections(placed.workload, ("data", "schema_")) for placed in (base, head))
    return _changed(one, other)


def _at_tier(placed: Placed) -> Placed:
    """The workload at the tier `pr`, under a policy that asks for no more than that."""
    workload, asked = placed.workload, at_tier(placed.policy, TIER)
    # Only a policy that changes is put in the place of its name.
    gate = {} if asked == placed.policy else {"gate": GateConfig(policy=asked.to_json())}
    attack = workload.attack.model_copy(update={"tier": TIER})
    return Placed(workload.model_copy(update={"attack": attack, **gate}), placed.folder)


def _located(placed: Placed) -> object:
    """The gate's section with the place of a policy that is a file."""
    gate = placed.workload.gate
    if gate.policy in packaged():
        return gate
    return gate.model_copy(update={"policy": str((placed.folder / gate.policy).resolve())})


def _requirements(placed: Placed) -> dict[str, str]:
    sections = tuple(name for name in REQUIRED if name != "gate")
    policy = json.loads(placed.policy.to_json())
    policy.pop("overridden", None)
    return _sections(placed.workload, sections) | dict(_flat(policy, "gate"))


def _sections(workload: Workload, names: tuple[str, ...]) -> dict[str, str]:
    dumped = workload.model_dump(mode="json")
    return {key: text for name in names for key, text in _flat(dumped[name], name.rstrip("_"))}


def _flat(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as text; what is not given has none."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, f"{key}.{name}")
    elif value is not None:
        yield key, value if isinstance(value, str) else json.dumps(value)


def _changed(base: Mapping[str, str], head: Mapping[str, str]) -> tuple[ChangedKey, ...]:
    keys = [key for key in dict.fromkeys([*base, *head]) if base.get(key) != head.get(key)]
    return tuple(
        ChangedKey(key=key[:200], base=_short(base.get(key)), head=_short(head.get(key))) for key in keys[:MOST]
    )


def _short(text: str | None) -> str:
    return _ABSENT if text is None else text[:_LONGEST]
