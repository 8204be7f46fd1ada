"""The files of a registered version, signed as OpenSSF model-signing 1.0 does: `model.sig`.

Specification: https://github.com/ossf/model-signing-spec. Its own verifier reads the file, and so do those of clusters.
It proves that the files belong together as they are, nothing about what the gate thought of them; a demand for the
chain asks for both.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime

from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import Signer
from holdfast.attestation.statement import MODEL_FILES, Statement, about, stamp
from holdfast.attestation.trust import Signed

SIGNATURE = "model.sig"
"""In the folder that it is about; it does not sign itself."""


def files_statement(name: str, files: Mapping[str, str], at: datetime, ignored: tuple[str, ...] = ()) -> Statement:
    """What is claimed about a folder of the model `name`: exactly these files (path -> SHA-256), all others left out.

    The subject's digest is that of all digests, in the order of the paths. Paths in `ignored` are not looked at.
    """
    listed = sorted(files.items())
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in listed)).hexdigest()
    predicate = {
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": sorted({SIGNATURE, *ignored}),
        },
        "resources": [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in listed],
        "timeCreated": stamp(at),
    }
    return about(f"model/{name}", root, MODEL_FILES, predicate)


def sign_files(
    name: str, files: Mapping[str, str], signer: Signer, at: datetime, ignored: tuple[str, ...] = ()
) -> bytes:
    """The bundle that `model.sig` holds."""
    return sign_payload(files_statement(name, files, at, ignored).payload(), signer)


def fits(signed: Signed, name: str, files: Mapping[str, str], ignored: tuple[str, ...] = ()) -> bool:
    """Whether a statement that counts is about exactly these files of this model."""
    return signed.statement == files_statement(name, files, signed.at, ignored)
