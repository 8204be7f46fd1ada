"""The baseline step: fetches the champion, verified, so that the new delivery and the new model can be compared."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast import registry
from holdfast.artifacts.documents import Baseline, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save, seal, write_artifact
from holdfast.attestation.demands import Demands
from holdfast.compute import Compute
from holdfast.errors import InputError
from holdfast.progress import say
from holdfast.steps import by_role


def baseline(
    snapshot: Ref, out: Path, *, name: str, tracking: str, settings: Compute, trust: Path | None = None
) -> Artifact[Baseline]:
    """Writes the champion of `name` with its schema, a sample of its training rows and its confidences.

    Without a champion, or without a registry (`tracking` is empty), the artifact records that (`present` is false)
    and holds no files. `trust` is a trust policy: whose signatures must be behind the champion.

    Raises:
        RegistryError: MLflow cannot be reached; not knowing whether there is a champion is not the same as none.
        IntegrityError, RefusedError: the champion's bytes are not those that passed the gate, or are not signed.
    """
    data = load(snapshot, Snapshot)
    if not tracking:
        return save(out, Baseline(inputs=by_role(data), name=name, present=False))
    with registry.fetched(tracking, name, registry.CHAMPION, Demands.of(trust, incumbent=True)) as bundle:
        if bundle is None:
            return save(out, Baseline(inputs=by_role(data), name=name, present=False))
        with write_artifact(out) as work:
            shutil.copytree(bundle.folder / "model", work / "model")
            for file in ("schema.pbtxt", "reference.parquet"):
                if (bundle.folder / file).is_file():
                    shutil.copyfile(bundle.folder / file, work / file)
            scores: dict[str, Any] = {**_scores(bundle, data, settings.prepare())}
            np.savez(work / "scores.npz", **scores)
            document = Baseline(
                inputs=by_role(data),
                name=name,
                present=True,
                model_version=bundle.version,
                model=bundle.model.digest,
            )
            sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


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
