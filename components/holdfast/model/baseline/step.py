"""The baseline step: fetches the champion, verified, so that the new delivery and the new model can be compared."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast import registry
from holdfast.artifacts.documents import Baseline, RetrainRequest, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save, seal, write_artifact
from holdfast.attestation.demands import Demands
from holdfast.compute import Compute
from holdfast.errors import InputError, RefusedError
from holdfast.progress import say
from holdfast.steps import by_role

OLDER = "older.npz"
MOST_OLDER, MOST_OLDER_BYTES = 2000, 4 * 2**20
OlderArrays = tuple[NDArray[Any], NDArray[np.int64]]
"""x and y."""


def baseline(
    snapshot: Ref,
    out: Path,
    *,
    name: str,
    tracking: str,
    settings: Compute,
    trust: Path | None = None,
    because: Artifact[RetrainRequest] | None = None,
) -> Artifact[Baseline]:
    """Writes the champion of `name` with its schema, rows of earlier deliveries and its confidences.

    Without a champion, or without a registry (`tracking` is empty), the artifact records that (`present` is false)
    and holds no files. `trust` is a trust policy: whose signatures must be behind the champion. `because` is the
    request that the run answers.

    Raises:
        RefusedError: the request is about another model than the champion, was answered already, or there are no rows
            from before it to compare on.
        RegistryError: MLflow cannot be reached; not knowing whether there is a champion is not the same as none.
        IntegrityError, RefusedError: the champion's bytes are not those that passed the gate, or are not signed.
    """
    data = load(snapshot, Snapshot)
    if not tracking and because is None:
        return save(out, Baseline(inputs=by_role(data), name=name, present=False))
    if because is not None:
        _require_open(tracking, name, because)
    with registry.fetched(tracking, name, registry.CHAMPION, Demands.of(trust, incumbent=True)) as bundle:
        older = None if bundle is None else _older(bundle)
        if because is not None:
            _require_older(because, bundle, older)
        if bundle is None:
            return save(out, Baseline(inputs=by_role(data), name=name, present=False))
        return _write(out, data, bundle, older, settings, because)


def _write(
    out: Path,
    data: Artifact[Snapshot],
    bundle: registry.Bundle,
    older: OlderArrays | None,
    settings: Compute,
    because: Artifact[RetrainRequest] | None,
) -> Artifact[Baseline]:
    with write_artifact(out) as work:
        if older is not None:
            np.savez(work / OLDER, x=older[0], y=older[1])
        shutil.copytree(bundle.folder / "model", work / "model")
        for file in ("schema.pbtxt", "reference.parquet"):
            if (bundle.folder / file).is_file():
                shutil.copyfile(bundle.folder / file, work / file)
        scores: dict[str, Any] = {**_scores(bundle, data, settings.prepare())}
        np.savez(work / "scores.npz", **scores)
        document = Baseline(
            inputs=by_role(data),
            name=bundle.name,
            present=True,
            model_version=bundle.version,
            model=bundle.model.digest,
            request=None if because is None else because.digest,
            older_than=None if because is None else because.document.older_than,
        )
        sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


def _older(bundle: registry.Bundle) -> OlderArrays | None:
    """Held-out rows of the champion's delivery, and of those that it was compared on; None: it came without.

    Where they are too many, as many are drawn as fit.
    """
    places = [bundle.folder / "replay.npz", bundle.folder / registry.EVIDENCE / "attack" / OLDER]
    parts = [_held(place) for place in places if place.is_file()]
    if not parts:
        return None
    alike = [(x, y) for x, y in parts if (x.shape[1:], x.dtype) == (parts[0][0].shape[1:], parts[0][0].dtype)]
    x, y = (np.concatenate(values) for values in zip(*alike, strict=True))
    most = min(MOST_OLDER, MOST_OLDER_BYTES // max(x[:1].nbytes, 1))
    kept = np.sort(np.random.default_rng(0).permutation(len(y))[:most])
    return x[kept], y[kept]


def _held(place: Path) -> OlderArrays:
    with np.load(place, allow_pickle=False) as held:
        return held["x"], held["y"]


def _require_open(tracking: str, name: str, because: Artifact[RetrainRequest]) -> None:
    """No version was made because of this request: each report leads to one retraining."""
    for version in registry.versions(tracking, name):
        if version.tags.get(registry.RETRAIN_REQUEST) == because.digest:
            raise RefusedError(
                f"{because.folder}: expected a request that no version answers, found version {version.number} of "
                f"{name}; the next report leads to the next request"
            )


def _require_older(
    because: Artifact[RetrainRequest],
    bundle: registry.Bundle | None,
    older: OlderArrays | None,
) -> None:
    """The champion is the model that was watched, so that its held-out rows are from before the hour in question."""
    watched = because.document.model
    if bundle is None or bundle.model.digest != watched:
        found = "none" if bundle is None else f"{bundle.model.digest[:12]}…"
        raise RefusedError(f"{because.folder}: expected the champion {watched[:12]}…, which was watched, found {found}")
    if older is None:
        raise RefusedError(
            f"{because.folder}: expected held-out rows of the champion's delivery to compare on, found none; rows from "
            f"{because.document.older_than} on may be poisoned"
        )


def _scores(bundle: registry.Bundle, data: Artifact[Snapshot], device: str) -> dict[str, NDArray[np.float64]]:
    """The champion's confidence on its own held-out rows and, where they fit its input, on the new training rows."""
    from holdfast.model.answers import softmax
    from holdfast.model.inputs import read_split
    from holdfast.model.networks import load_network, logits

    with np.load(bundle.path("confidence.npz"), allow_pickle=False) as arrays:
        scores = {"reference_confidence": arrays["reference_confidence"].astype(np.float64)}
    try:
        rows = read_split(data, "train", bundle.model.document.input)
    except InputError as error:
        say(f"baseline: the champion cannot read these rows, its confidence on them is left out: {error}")
        return scores
    values = logits(load_network(bundle.model, device), rows.x, device=device)
    return scores | {"current_confidence": softmax(values).max(axis=1)}
