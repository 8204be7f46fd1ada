"""A model that lacks what its policy asks, waived by a person, from the gate's command to MLflow's page."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from holdfast import registry
from holdfast.artifacts.documents import GateDecision, Requirements, Verdict
from holdfast.artifacts.folder import Ref, load
from holdfast.attestation.demands import Demands
from holdfast.attestation.sign import attest
from holdfast.cli.app import app
from holdfast.errors import HoldfastError, RefusedError, WaiverEndedError
from holdfast.model.register.step import Signed
from holdfast.serving.predictor.admission import admit
from tests.attestation.chains import NOW, make_keys, trust_in
from tests.model.register.test_signed import call, sign_all

CHECK = "clean_accuracy"
UNTIL = (datetime.now(UTC) + timedelta(days=20)).strftime("%Y-%m-%d")
LATER = NOW + timedelta(hours=6)


def holdfast(*words):
    """What a command prints; raises what ends it."""
    result = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(result.exception, HoldfastError):
        raise result.exception
    return result


def waive(folder, model, *words, check=CHECK, until=UNTIL):
    return holdfast(
        "waive", check, f"--model={model}", "--owner=Ana", "--reason=ships *now*", f"--until={until}",
        f"--key={folder}/keys/approver.pem", f"--out={folder}/waivers", *words,
    )  # fmt: skip


def judged(chain, folder, *words):
    """The gate's command with what people signed."""
    policy = (chain.decision.folder / "policy.json").read_text()
    evidence = [f"--{role}={ref.folder}" for role, ref in chain.evidence.items()]
    out = folder / "judged"
    result = holdfast(
        "gate", f"--model={chain.model.folder}", f"--snapshot={chain.snapshot.folder}", *evidence,
        f"--policy={policy}", f"--out={out}", f"--waivers={folder}/waivers", *words,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return load(out, GateDecision)


@pytest.fixture
def world(chain, tmp_path):
    """A model that failed, and keys."""
    keys = make_keys(tmp_path / "keys")
    failed = chain(verdict=Verdict.FAIL, require=Requirements(attested=True, waivers_at_most=1))
    return failed, keys, tmp_path


def test_a_waived_model_is_registered_shown_and_served_until_the_waiver_ends(world, tracking):
    failed, keys, folder = world
    trust = folder / "keys" / "trust.yaml"
    waive(folder, failed.model.digest)
    decision = judged(failed, folder, f"--trust={trust}", f"--key={folder}/keys/gate.pem")
    assert decision.document.verdict is Verdict.PASS
    passed = type(failed)(failed.model, Ref(decision.folder, decision.digest), failed.snapshot, failed.evidence)
    sign_all(passed, keys, folder / "attestations", without=(GateDecision,))
    demands = Demands(trust_in(folder / "keys"), LATER)
    call(passed, folder, tracking, Signed(demands, folder / "attestations", keys["gate"]))
    (version,) = registry.versions(tracking, "demo-image")
    assert version.tags["holdfast.waivers"] == f"clean_accuracy by Ana until {UNTIL}T00:00:00Z"
    with registry.client.connected(tracking) as client:
        page = client.get_model_version("demo-image", "1").description
    assert page.startswith("verdict pass, waived: clean_accuracy")
    assert r"Ana: ships \*now\*" in page
    place = registry.fetch(tracking, "demo-image", 1, folder / "version", demands).folder
    assert admit(Ref(place / "model"), Ref(place / "decision"), trust).digest == failed.model.digest
    ended = Demands(trust_in(folder / "keys"), NOW + timedelta(days=30))
    with pytest.raises(WaiverEndedError, match="the waiver of clean_accuracy by Ana ended at"):
        registry.fetch(tracking, "demo-image", 1, folder / "again", ended)


def test_register_refuses_a_waiver_that_ended_since_the_gate_counted_it(world, tracking):
    failed, keys, folder = world
    waive(folder, failed.model.digest)
    decision = judged(failed, folder, f"--trust={folder}/keys/trust.yaml")
    passed = type(failed)(failed.model, Ref(decision.folder, decision.digest), failed.snapshot, failed.evidence)
    sign_all(passed, keys, folder / "attestations")
    late = Signed(Demands(trust_in(folder / "keys"), NOW + timedelta(days=21)), folder / "attestations")
    with pytest.raises(WaiverEndedError, match="ended at"):
        call(passed, folder, tracking, late)
    assert registry.versions(tracking, "demo-image") == ()


def test_a_waiver_that_someone_wrote_into_the_decision_is_refused(world, tracking):
    """Without a key of the role approver: even with that of the gate."""
    failed, keys, folder = world
    waive(folder, failed.model.digest)
    decision = judged(failed, folder, f"--trust={folder}/keys/trust.yaml")
    passed = type(failed)(failed.model, Ref(decision.folder, decision.digest), failed.snapshot, failed.evidence)
    sign_all(passed, keys, folder / "others", without=(GateDecision,))
    attest(decision, keys["gate"], folder / "others", run="", at=NOW)
    with pytest.raises(RefusedError, match="signed by a key of the role approver, found none that counts"):
        call(passed, folder, tracking, Signed(Demands(trust_in(folder / "keys"), LATER), folder / "others"))
    with pytest.raises(RefusedError, match="expected a trust policy, because the gate's policy requires signatures"):
        call(passed, folder, tracking, Signed(Demands(), folder / "attestations"))


def test_the_page_of_a_failed_model_names_the_command(world):
    failed, _, folder = world
    (folder / "waivers").mkdir()
    page = judged(failed, folder, f"--trust={folder}/keys/trust.yaml").open("decision.md").read().decode()
    assert f"`holdfast waive clean_accuracy --model {failed.model.digest} --owner NAME" in page


def test_what_waive_signs_is_printed(world):
    failed, _, folder = world
    assert "clean_accuracy is waived for model" in waive(folder, failed.model.digest).stdout
    said = json.loads(waive(folder, failed.model.digest, "--json").stdout)
    assert (said["check"], said["owner"], said["until"]) == (CHECK, "Ana", f"{UNTIL}T00:00:00Z")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"check": "clean_acuracy"}, "expected one of"),
        ({"model": "abc"}, "expected 64 hexadecimal digits"),
        ({"until": "soon"}, "until"),
    ],
)
def test_what_could_never_count_is_wrong_usage(world, changes, message):
    _, _, folder = world
    given = {"model": "0" * 64, **changes}
    result = waive(folder, given.pop("model"), **given)
    assert result.exit_code == 2
    assert message in result.stderr


def test_waivers_are_read_with_a_trust_policy_only(world):
    failed, _, folder = world
    waive(folder, failed.model.digest)
    result = holdfast("gate", f"--model={failed.model.folder}", f"--snapshot={failed.snapshot.folder}",
                      f"--out={folder}/x", f"--waivers={folder}/waivers")  # fmt: skip
    assert result.exit_code == 2
