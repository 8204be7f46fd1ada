"""The bill of materials of a model: CycloneDX 1.6 (ML-BOM), made of its documents and of what is installed here.

https://cyclonedx.org/capabilities/mlbom. Same inputs, same bytes: the serial number is made of the model's digest, and
there is no time in it; the version's `model.sig` signs it.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

from holdfast.artifacts.documents import Check, GateDecision, Model, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.attestation.statement import PROJECT

NAME = "bom.cdx.json"
"""In the version and in its run."""
_DATA, _MODEL, _OURS = "data", "model", "holdfast"


def bill(
    model: Artifact[Model], decision: Artifact[GateDecision], snapshot: Artifact[Snapshot], needed: Iterable[str]
) -> bytes:
    """What a model consists of: its data, Holdfast, the packages that it needs (`NAME==VERSION`) and all of theirs.

    Returns:
        JSON, sorted keys, UTF-8.
    """
    itself, data = _itself(model, decision), _data(snapshot)
    libraries = [_library(name, version) for name, version in sorted(installed([_OURS, *needed]).items())]
    bom = Bom(components=[data, *libraries], serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{PROJECT}/{model.digest}"))
    bom.metadata.component = itself
    bom.register_dependency(itself, [data, *libraries])
    value: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del value["metadata"]["timestamp"]
    # The library has no model card yet; the schema has.
    value["metadata"]["component"]["modelCard"] = _card(model.document, decision.document, snapshot.document)
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"


def installed(needed: Iterable[str]) -> dict[str, str]:
    """Name -> version of these packages and of all that they need, as far as they are installed here."""
    found: dict[str, str] = {}
    queue = [Requirement(text).name for text in needed]
    while queue:
        name = queue.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        key = package.metadata["Name"].lower().replace("_", "-")
        if key in found:
            continue
        found[key] = package.version
        requirements = [Requirement(text) for text in package.requires or ()]
        queue += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def _itself(model: Artifact[Model], decision: Artifact[GateDecision]) -> Component:
    facts = {
        "holdfast:artifact": model.digest,
        "holdfast:decision": decision.digest,
        "holdfast:policy": decision.document.policy,
        "holdfast:verdict": str(decision.document.verdict),
        "holdfast:threat-model": f"{model.document.threat.norm} {model.document.threat.epsilon}",
    }
    files = {f"holdfast:file:{name}": pin.sha256 for name, pin in model.document.files.items()}
    return Component(
        name=model.document.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=model.digest[:12],
        bom_ref=_MODEL,
        hashes=[_sha256(model.digest)],
        properties=_properties(facts | files),
    )


def _data(snapshot: Artifact[Snapshot]) -> Component:
    document = snapshot.document
    sources = {f"holdfast:source:{source.path}": source.sha256 for source in document.sources}
    return Component(
        name=f"{document.name} data",
        type=ComponentType.DATA,
        version=snapshot.digest[:12],
        bom_ref=_DATA,
        hashes=[_sha256(snapshot.digest)],
        properties=_properties({"holdfast:artifact": snapshot.digest, "holdfast:root": document.root, **sources}),
    )


def _library(name: str, version: str) -> Component:
    # Holdfast comes from no index: the version carries it.
    own = PackageURL("generic", name=name, version=version, qualifiers={"vcs_url": f"git+{PROJECT}"})
    url = own if name == _OURS else PackageURL("pypi", name=name, version=version)
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=f"{name}@{version}")


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _properties(facts: Mapping[str, str]) -> list[Property]:
    return [Property(name=name, value=value) for name, value in facts.items()]


def _card(model: Model, decision: GateDecision, snapshot: Snapshot) -> dict[str, Any]:
    """CycloneDX's model card: what it was trained for, on what, and what the gate measured with its bounds."""
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "classification",
            "modelArchitecture": model.architecture.name,
            "datasets": [{"ref": _DATA}],
            "inputs": [{"format": f"{model.input.dtype}{list(model.input.shape)}"}],
            "outputs": [{"format": f"one of {len(snapshot.classes)} classes"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": [_metric(check) for check in decision.checks if _rate(check)]},
    }


def _rate(check: Check) -> bool:
    return check.measured is not None and check.count is not None


def _metric(check: Check) -> dict[str, Any]:
    bounds = {"lowerBound": check.lower, "upperBound": check.upper}
    interval = {name: f"{bound:.6g}" for name, bound in bounds.items() if bound is not None}
    return {
        "type": check.name,
        "value": f"{check.measured:.6g}",
        **({"confidenceInterval": interval} if interval else {}),
    }
