"""What the steps of a run would refuse much later, refused before they begin.

From the workload alone before the first step: the device, and whether functions of its own can be imported and called.
As soon as the snapshot has read the rows: classes, columns and rows, and whether the network takes them.
"""

import json
from pathlib import Path

from holdfast import containers
from holdfast.artifacts.admission import OtherPolicy
from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.artifacts.policies import PolicyList, policy_digest
from holdfast.attestation.trust import read_trust
from holdfast.errors import WorkloadError
from holdfast.workload.fit import check_fit
from holdfast.workload.paths import own_functions
from holdfast.workload.schema import Workload
from holdfast_pipelines.local import Machine
from holdfast_pipelines.parameters import Settings

_DEVICES = ("auto", "cpu", "cuda")
_SMALL = 8
"""Pixels of a side below which not every built-in network has an answer."""


def check_policy(policy: str, trust: Path | None) -> None:
    """Before the first step: whether the policy in effect (JSON) may decide what is registered and served.

    Raises:
        WorkloadError: it does not ship, and the trust policy does not name it.
    """
    counted = PolicyList() if trust is None else read_trust(trust).file.counted
    digest = policy_digest(policy)
    if not counted.has(digest, policy.encode()):
        raise WorkloadError(f"gate.policy: {OtherPolicy(json.loads(policy)['name'], digest)}")


def check_workload(machine: Machine, workload: Workload, settings: Settings) -> None:
    """Before the first step.

    Raises:
        WorkloadError: there is no such device.
        RunError: no GPU where one is asked for, or code of the workload's own that cannot be used.
    """
    if settings.device not in _DEVICES:
        raise WorkloadError(f"--device: expected {', '.join(_DEVICES)}, found {settings.device!r}")
    if own_functions(workload) or settings.device == "cuda":
        machine.check(_words(workload, settings), containers.MODEL)


def check_rows(machine: Machine, workload: Workload, settings: Settings, snapshot: Artifact[Snapshot]) -> None:
    """After the rows were read.

    Raises:
        WorkloadError, InputError: classes, columns or rows that do not fit.
        RunError: a network that does not take these rows.
    """
    check_fit(workload, snapshot.document)
    if own_functions(workload) or workload.network.arguments or _is_small(snapshot.document):
        place = f"{snapshot.folder}@{snapshot.digest}"
        machine.check([*_words(workload, settings), f"--snapshot={place}"], containers.MODEL)


def _is_small(document: Snapshot) -> bool:
    return len(document.shape) > 1 and min(document.shape[1:]) < _SMALL


def _words(workload: Workload, settings: Settings) -> list[str]:
    config = workload.model_dump_json(by_alias=True)
    return ["check-network", f"--config={config}", f"--device={settings.device}", f"--threads={settings.threads}"]
