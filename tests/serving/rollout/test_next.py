"""`holdfast rollout next` rolls out the approved candidate, and does nothing where there is none."""

import os
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from holdfast import registry
from holdfast.artifacts.cause import Cause
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.people import JudgedVersion, SignerWords, approval_statement
from holdfast.cli.app import app as holdfast
from holdfast.registry.approvals import APPROVAL_TAG
from holdfast.registry.client import connected
from holdfast.registry.notes import Note
from tests.attestation.chains import make_keys

TARGET = (
    'namespace: models\nkserve: {service: tiny, candidate: {model: {storageUri: "pvc://models/sha256/{digest}"}}}\n'
)


class ReplacedError(Exception):
    """The process would have become another one."""


@pytest.fixture
def begin(own_tracking, tmp_path, monkeypatch):
    """Runs the command; returns its exit code, its messages, and the command line that it became, if it did."""

    def replaced(_, words):
        raise ReplacedError(*words)

    monkeypatch.setattr(os, "execv", replaced)
    (tmp_path / "target.yaml").write_text(TARGET)

    def run(*options, target=tmp_path / "target.yaml"):
        places = [f"--out={tmp_path / 'records'}", f"--store={tmp_path / 'store'}", f"--tracking={own_tracking}"]
        words = ["rollout", "next", "--name=tiny", f"--target={target}", "--driver=kserve", *places, *options]
        done = CliRunner().invoke(holdfast, words)
        become = list(done.exception.args) if isinstance(done.exception, ReplacedError) else None
        return done, become

    return run


def tags_of(tracking, version):
    return next(one.tags for one in registry.versions(tracking, "tiny") if one.number == version)


def note(tracking, outcome, decision):
    made = Note(2, outcome, "clients saw errors", 1.0, 2.0, 1, "m" * 64, decision, cause=Cause.OPERATOR)
    registry.tag(tracking, "tiny", 2, made.key, made.value)


def test_without_a_candidate_there_is_nothing_to_do(begin, own_tracking):
    registry.promote(own_tracking, "tiny", 3)  # takes the alias away
    done, become = begin("--approvals=0")
    assert (done.exit_code, become) == (0, None)
    assert "tiny: nothing to do: no version is a candidate" in done.output


def test_before_there_is_a_champion_nothing_is_moved(begin, own_tracking):
    registry.set_alias(own_tracking, "tiny", "candidate", 2)
    with connected(own_tracking) as client:
        client.delete_registered_model_alias("tiny", "champion")
    done, become = begin("--approvals=0")
    assert (done.exit_code, become) == (0, None)
    assert "tiny: nothing to do: there is no champion yet" in done.output


def test_the_candidate_is_stored_and_its_rollout_started_with_its_digest_in_the_target(begin, own_tracking, tmp_path):
    registry.set_alias(own_tracking, "tiny", "candidate", 2)
    _, become = begin("--approvals=0", "--config={}", "--set=space=models")
    digest = tags_of(own_tracking, 2)["holdfast.model_digest"]
    assert (tmp_path / "store" / "sha256" / digest / "bundle" / "bundle.json").is_file()
    record, target = tmp_path / "records" / "tiny-2", tmp_path / "records" / "tiny-2.target.yaml"
    assert target.read_text() == TARGET.replace("{digest}", digest).replace("{space}", "models")
    assert become[1:6] == ["-m", "holdfast", "rollout", "start", "--name=tiny"]
    assert {"--version=2", f"--out={record}", f"--target={target}", "--driver=kserve"} <= set(become)


def test_what_ended_is_not_started_again_until_the_gate_judges_again(begin, own_tracking):
    registry.set_alias(own_tracking, "tiny", "candidate", 2)
    note(own_tracking, "inconclusive", tags_of(own_tracking, 2)["holdfast.decision_digest"])
    done, become = begin("--approvals=0")
    assert (done.exit_code, become) == (0, None)
    assert "the rollout of version 2 has ended (inconclusive: clients saw errors)" in done.output


def test_the_end_of_a_rollout_under_an_older_decision_keeps_nothing_back(begin, own_tracking):
    registry.set_alias(own_tracking, "tiny", "candidate", 2)
    note(own_tracking, "inconclusive", "d" * 64)
    assert begin("--approvals=0")[1] is not None


def test_approvals_need_a_trust_policy(begin):
    done, become = begin()
    assert (done.exit_code, become) == (2, None)


def test_a_candidate_waits_for_an_approval_that_counts(begin, own_tracking, tmp_path):
    registry.set_alias(own_tracking, "tiny", "candidate", 2)
    keys, trust = make_keys(tmp_path), f"--trust={tmp_path / 'trust.yaml'}"
    approve(own_tracking, keys["trainer"])
    done, become = begin(trust)
    assert (done.exit_code, become) == (0, None)
    assert "version 2 has 0 of 1 approvals; see `holdfast approve`" in done.output
    approve(own_tracking, keys["approver"])
    done, become = begin(trust)
    # It is approved, so it is asked for what else this trust policy demands: nothing of this toy is signed.
    assert (become, type(done.exception).__name__) == (None, "RefusedError")


def approve(tracking, key):
    tags = tags_of(tracking, 2)
    one = JudgedVersion("tiny", tags["holdfast.model_digest"], tags["holdfast.decision_digest"], 2)
    statement = approval_statement(one, SignerWords("Ana", "read the table"), datetime.now(UTC))
    signed = sign_payload(statement.payload(), key).decode()
    registry.tag(tracking, "tiny", 2, f"{APPROVAL_TAG}{key.fingerprint[:16]}", signed)


def test_a_target_that_holds_no_digest_is_refused(begin, own_tracking, tmp_path):
    registry.set_alias(own_tracking, "tiny", "candidate", 2)
    (tmp_path / "fixed.yaml").write_text("namespace: models\n")
    done, become = begin("--approvals=0", target=tmp_path / "fixed.yaml")
    assert become is None
    assert "expected {digest} in the candidate's address, found none" in str(done.exception)


@pytest.mark.parametrize("given", ["space", "=models", "a b=c"])
def test_what_is_set_has_a_name_and_a_value(begin, own_tracking, given):
    registry.set_alias(own_tracking, "tiny", "candidate", 2)
    assert begin("--approvals=0", f"--set={given}")[0].exit_code == 2
