"""A request of the monitor, as a folder or, where a pod has no such folder, as the text of its document."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from holdfast.artifacts.documents import RetrainRequest
from holdfast.artifacts.folder import Artifact, Ref, canonical_json, load, strict_json
from holdfast.errors import ArtifactError

_NAME = "the request"


def read_request(text: str) -> Artifact[RetrainRequest]:
    """The request in `FOLDER`, `FOLDER@DIGEST` or JSON; its digest is that of the document's bytes.

    Raises:
        ArtifactError: there is none.
    """
    if not text.lstrip().startswith("{"):
        return load(Ref.parse(text), RetrainRequest)
    try:
        strict_json(text.encode(), _NAME)
        document = RetrainRequest.model_validate_json(text)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        raise ArtifactError(f"{_NAME}: expected a retrain-request, found {where}: {found['msg']}") from None
    return Artifact(Path(_NAME), document, hashlib.sha256(canonical_json(document)).hexdigest())


def request_text(request: Artifact[RetrainRequest]) -> str:
    """The document as `read_request` reads it."""
    return canonical_json(request.document).decode().rstrip("\n")
