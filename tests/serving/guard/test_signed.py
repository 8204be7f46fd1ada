"""A calibration's statement counts as those of other artifacts do: by its role, back to the data."""

import pytest

from holdfast.artifacts.documents import Count, GuardCalibration
from holdfast.artifacts.folder import save
from holdfast.attestation import store
from holdfast.attestation.chain import check_chain
from holdfast.attestation.sign import attest
from tests.attestation.chains import NOW, signed_run


def calibration(made):
    inputs = {"model": made.artifacts["train"].digest, "snapshot": made.artifacts["snapshot"].digest}
    return GuardCalibration(
        inputs=inputs, name="digits", features="logits", reference_rows=9, held_out_rows=9, near_rows=9, alpha=1e-4,
        confidence=0.99, least_p=0.5, seed=0, benign=Count(k=0, n=20), streams=(),
    )  # fmt: skip


@pytest.mark.parametrize(("role", "holds"), [("trainer", True), ("gate", False), ("approver", False)])
def test_the_trainer_signs_it_and_the_chain_goes_on_to_the_data(tmp_path, role, holds):
    made = signed_run(tmp_path)
    found = save(tmp_path / "guard", calibration(made))
    attest(found, made.keys[role], made.folder / store.ATTESTATIONS, run="toy", at=NOW)
    documents = {**made.documents, found.digest: found.document}
    chain = check_chain(found.digest, documents, made.bundles, made.trust, NOW)
    assert chain.holds == holds
    assert [link.subject.split(" ")[0] for link in chain.links][:3] == ["guard-calibration", "model", "snapshot"]
