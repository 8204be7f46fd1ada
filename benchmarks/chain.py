"""Signing and verifying: how long, and who else reads it."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from holdfast.attestation.chain import check_chain
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.predicates import Occasion, statement_of
from holdfast.attestation.trust import read_trust
from tests.attestation.chains import NOW, Made, signed_run
from tests.attestation.foreign import read_by_sigstore
from tests.attestation.versions import store_version

REPEATS = 20


def run(bench: Bench) -> list[Row]:
    """CPU-seconds of one core; the least of several."""
    with tempfile.TemporaryDirectory(prefix="holdfast-chain-") as folder:
        made = signed_run(Path(folder))
        count = sum(map(len, made.bundles.values()))
        how = f"a run in miniature, {count} statements, keys on disk; least of {REPEATS}, one thread"
        return [
            at_most("a chain of 13 statements, verified offline: CPU-seconds", _verified(made), 1.0, how),
            at_most("signing one statement: CPU-seconds", _signed(made), 0.02, how),
            at_least(
                "statements of a run that sigstore-python verifies, of 13",
                float(read_by_sigstore(made)),
                float(count),
                "its DSSE verifier, with our public keys and none of our code",
            ),
            shown(
                "files of a version that OpenSSF model-signing verifies",
                _files_read(made, Path(folder) / "version"),
                "model.sig and gate.pub to its verifier",
            ),
        ]


def _verified(made: Made) -> float:
    """From the files: trust policy, keys and bundles are read each time."""

    def work() -> None:
        trust = read_trust(made.folder / "keys" / "trust.yaml")
        assert check_chain(made.top, made.documents, made.bundles, trust, NOW).holds

    return cpu_seconds(work, repeats=REPEATS)


def _signed(made: Made) -> float:
    artifact = made.artifacts["attack"]

    def work() -> None:
        statement = statement_of(artifact.document, artifact.digest, Occasion("bench", NOW))
        sign_payload(statement.payload(), made.keys["attacker"])

    return cpu_seconds(work, repeats=REPEATS)


def _files_read(made: Made, folder: Path) -> float:
    from model_signing import verifying

    version = store_version(made, folder, made.keys["gate"])
    config = verifying.Config().use_elliptic_key_verifier(public_key=made.folder / "keys" / "gate.pub")
    config.verify(version.folder, version.folder / "model.sig")
    return float(_count(path for path in version.folder.rglob("*") if path.is_file()) - 2)


def _count(paths: Iterable[Path]) -> int:
    return sum(1 for _ in paths)
