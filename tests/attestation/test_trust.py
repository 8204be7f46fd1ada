"""`trust.yaml` without signatures: the policies whose verdicts count, and nothing else."""

import pytest

from holdfast.artifacts.documents import Requirements
from holdfast.artifacts.policies import PolicyList
from holdfast.attestation.demands import Demands
from holdfast.attestation.trust import read_trust
from holdfast.attestation.verify import Signatures, verify_signatures
from holdfast.errors import RefusedError, WorkloadError
from holdfast_gates.policy import find
from tests.attestation.chains import NOW, make_run, signed_run, trust_in

OURS = "9" * 64


def trusting(tmp_path, text):
    path = tmp_path / "trust.yaml"
    path.write_text(f"version: 1\n{text}\n")
    return path


def test_a_file_with_policies_alone_asks_for_no_signature(tmp_path):
    gate = make_run(tmp_path)["gate"]
    demands = Demands.of(trusting(tmp_path, f"policies: [shipped, {OURS}]"))
    assert demands.policies == PolicyList(frozenset({OURS}))
    assert demands.meet(gate, [], {}) is None
    demands.meet_files(tmp_path, "digits", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected roles; without them the file has policies"),
        ("roles:", "expected roles, found none; leave the key out"),
        ("policies: []", "policies"),
        ("policies: [default]", "policies"),
        (f"policies: [{OURS}]\nmax_age_days: 3", "expected roles"),
        (f"policies: [{OURS}]\nrevoked: [{{fingerprint: {OURS}}}]", "expected roles"),
    ],
)
def test_a_file_that_asks_nothing_by_mistake_is_refused(tmp_path, text, message):
    with pytest.raises(WorkloadError, match=message):
        read_trust(trusting(tmp_path, text))


def test_without_roles_what_must_be_signed_is_refused(tmp_path):
    asks = find("default").model_copy(update={"require": Requirements(attested=True)})
    gate = make_run(tmp_path, asks)["gate"]
    with pytest.raises(RefusedError, match="expected a trust policy, .*found one without roles"):
        Demands.of(trusting(tmp_path, f"policies: [{asks.digest}]")).meet(gate, [], {})


def test_without_a_list_those_that_ship_count_and_for_what_serves_already_any(tmp_path):
    assert Demands().policies == PolicyList()
    assert Demands(incumbent=True).policies is None
    listed = trusting(tmp_path, f"policies: [{OURS}]")
    assert Demands.of(listed, incumbent=True).policies == PolicyList(frozenset({OURS}), shipped=False)


def test_a_signed_verdict_by_another_policy_is_refused_by_name_or_not(tmp_path):
    """Keys of every role signed it; the policy is only named default."""
    made = signed_run(tmp_path / "run")
    ours = find("default").model_copy(update={"alpha": 0.4})
    artifacts = [*make_run(tmp_path / "other", ours).values()]
    trust = trust_in(made.folder / "keys")
    found = verify_signatures([], artifacts, Signatures({}, trust, NOW))
    assert [(one.state, ours.digest in one.detail) for one in found] == [("refused", True)]
    listed = trust_in(made.folder / "keys", policies=("shipped", ours.digest))
    assert verify_signatures([], artifacts, Signatures({}, listed, NOW)) == []
