"""Target files, the rules of Seldon's webhook, and the annotations that hold a rollout's state."""

import json
import re

import pytest
import yaml

from holdfast.errors import FencedError, RolloutError, WorkloadError
from holdfast.kubernetes.objects import rfc3339
from holdfast.serving.rollout.cluster import store, target
from holdfast.serving.rollout.cluster.open import candidate_digest
from holdfast.serving.rollout.cluster.seldon_v1 import broken_rule, readiness, removal
from holdfast.serving.rollout.cluster.series import SETS
from holdfast.serving.rollout.cluster.target import read_target, section_names

V1, V2, KSERVE = (part.split("```")[0] for part in target.__doc__.split("```yaml\n")[1:])
"""The examples of the module's own documentation."""


def write(tmp_path, text):
    (tmp_path / "target.yaml").write_text(text)
    return tmp_path / "target.yaml"


def with_section(section, text=V1):
    head, _, rest = text.partition("seldon-v1:")
    return head + section + "metrics:" + rest.partition("metrics:")[2]


def test_the_documented_files_are_read_as_they_stand(tmp_path):
    one = read_target(write(tmp_path, V1))
    assert (one.seldon_v1.deployment, one.seldon_v1.candidate.name, one.seldon_v2) == ("fraud", "candidate", None)
    assert one.metrics.set is SETS["seldon-v1"]
    assert "fraud-candidate" in one.probes.candidate.url
    two = read_target(write(tmp_path, with_section(V2)))
    assert (two.seldon_v2.experiment, two.seldon_v2.candidate.name, two.seldon_v1) == ("fraud", "fraud-candidate", None)
    three = read_target(write(tmp_path, with_section(KSERVE)))
    assert (three.driver, three.kserve.service) == ("kserve", "fraud")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("model:", "canaryTrafficPercent: 5\n    model:", "canaryTrafficPercent is the driver's; leave it out"),
        ("model:", "storageUris: []\n    model:", "expected model.storageUri only, found storageUris"),
        (', storageUri: "s3://models/sha256/<digest>"', ", storage: {path: m}", "model.storageUri is missing"),
        ("service: fraud", "service: Fraud", "service"),
    ],
)
def test_a_predictor_is_one_address_and_no_traffic(tmp_path, old, new, found):
    assert old in KSERVE
    with pytest.raises(WorkloadError, match=r"target\.yaml:\d+: ") as caught:
        read_target(write(tmp_path, with_section(KSERVE.replace(old, new))))
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("deployment: fraud", "deploment: fraud", "did you mean 'deployment'"),
        ("namespace: models", "namespace: Models", "namespace"),
        ("replicas: 1", "traffic: 5", "traffic is the driver's; leave it out"),
        ("replicas: 1", "shadow: true", "shadow is the driver's"),
        ("name: classifier, ", "", "graph.name is missing"),
        ("stable: main", "stable: candidate", "must differ"),
        ("predictor_name: candidate}", "predictor_name: main}", "told apart by labels"),
        ("predictor_name: candidate}", "predictor_name: '('}", "expected a regular expression"),
        ("prometheus: http:", "prometheus: file:", "prometheus"),
        ("series: seldon-v1", "series: seldon-v3", "series"),
        ("seldon-v1:\n", "other:\n", "unknown key 'other'"),
        ("http://fraud-main", "ftp://fraud-main", "expected http://HOST:PORT/PATH"),
        ("http://fraud-main", "http://someone:word@fraud-main", "expected http://HOST:PORT/PATH"),
        ("http://fraud-main", "http://fraud-candidate", "champion and candidate must differ"),
        (
            'infer"}\n  candidate',
            'infer", headers: {host: a}}\n  candidate',
            "expected no header of the request",
        ),
        ('infer"}\n  candidate', 'infer", headers: {x-a: "b\\r\\nc: d"}}\n  candidate', "headers"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_place(tmp_path, old, new, found):
    assert old in V1
    with pytest.raises(WorkloadError, match=r"target\.yaml:\d+: ") as caught:
        read_target(write(tmp_path, V1.replace(old, new)))
    assert found in str(caught.value)


def test_a_target_is_of_one_version(tmp_path):
    with pytest.raises(WorkloadError, match=" and ".join(section_names())):
        read_target(write(tmp_path, V1 + V2))


def test_another_model_is_another_rollout(tmp_path):
    one, other = read_target(write(tmp_path, V1)), read_target(write(tmp_path, V1.replace("<digest>", "c0ffee")))
    assert candidate_digest(one) != candidate_digest(other)
    assert candidate_digest(one) == candidate_digest(read_target(write(tmp_path, V1)))


def predictor(name, traffic=None, **more):
    return {"name": name, "graph": {"name": "m"}, **({} if traffic is None else {"traffic": traffic}), **more}


@pytest.mark.parametrize(
    ("here", "broken"),
    [
        ([predictor("a", 100)], None),
        ([predictor("a")], None),
        ([predictor("a", 50)], "expected traffic 0 or 100 of the only predictor, found 50"),
        ([predictor("a", 90), predictor("b", 10)], None),
        ([predictor("a", 90), predictor("b", 5)], r"adds up to 100, found \[90, 5\]"),
        ([predictor("a", 90), predictor("a", 10)], "unique names"),
        ([predictor("a", 100), predictor("b", 100, shadow=True)], None),
        ([predictor("a", 100), predictor("b", 101, shadow=True)], "between 0 and 100"),
        ([predictor("a", 100), predictor("b", 1, shadow=True), predictor("c", 1, shadow=True)], "at most one shadow"),
        ([predictor("a", 100, shadow=True)], "not a shadow, found none"),
    ],
)
def test_the_webhooks_rules(here, broken):
    # Rules as read in the operator's webhook; its tests name the same cases.
    found = broken_rule(here)
    assert (found is None) if broken is None else re.search(broken, found)


def deployment(here, **status):
    return {"metadata": {"name": "fraud"}, "spec": {"predictors": here}, "status": status}


def test_a_removal_is_one_patch_and_none_when_it_is_done():
    here = [predictor("candidate", 30), predictor("main", 70)]
    assert removal(deployment(here), "main", "candidate", {}) == [
        {"op": "test", "path": "/spec/predictors/0/name", "value": "candidate"},
        {"op": "test", "path": "/spec/predictors/1/name", "value": "main"},
        {"op": "add", "path": "/spec/predictors/1/traffic", "value": 100},
        {"op": "remove", "path": "/spec/predictors/0"},
    ]
    assert removal(deployment([predictor("main", 100)]), "main", "candidate", {}) == []
    with pytest.raises(RolloutError, match="expected a predictor 'main', found none"):
        removal(deployment([predictor("x", 100)]), "main", "candidate", {})


def test_deployments_belong_to_the_predictor_with_the_longest_name_that_fits():
    here = [predictor("main", 50), predictor("main-2", 50)]
    counts = {"replicas": 1, "availableReplicas": 1}
    down = {"replicas": 1, "availableReplicas": 0}
    found = deployment(here, deploymentStatus={"fraud-main-0-m": counts, "fraud-main-2-0-m": down}, state="Creating")
    assert readiness(found) == {"main": True, "main-2": False}
    assert readiness(deployment(here)) == {"main": False, "main-2": False}


def held(**notes):
    return {
        "metadata": {"name": "fraud", "annotations": {f"{store.PREFIX}{key}": value for key, value in notes.items()}}
    }


def test_a_higher_fence_is_another_drivers():
    store.require_fence(held(fence="3"), 3)
    with pytest.raises(FencedError, match=r"another driver has taken over \(fence 4, ours is 3\)"):
        store.require_fence(held(fence="4"), 3)
    with pytest.raises(RolloutError, match="expected a number in holdfast.dev/fence, found 'many'"):
        store.require_fence(held(fence="many"), 3)


def test_the_history_stays_small_and_keeps_the_newest():
    found = held()
    for number in range(200):
        line = store.entry("intent", 1, 0.0, {"number": number, "reason": "x" * 900})
        found = held(history=store.longer(found, line))
    text = found["metadata"]["annotations"][store.HISTORY]
    assert len(text) <= store.MAX_HISTORY_BYTES
    assert json.loads(text)[-1]["number"] == 199
    assert store.longer(found, line) == text  # a line whose answer was lost is not written twice


def test_facts_that_take_too_much_room_are_left_out():
    assert store.entry("intent", 1, 0.0, {"reason": "x" * 5000}) == {
        "t": "1970-01-01T00:00:00Z",
        "fence": 1,
        "kind": "intent",
    }


def test_an_expiry_is_renewed_when_half_of_its_time_is_gone_or_it_lies_too_far_ahead():
    now = 1_700_000_000.0
    fresh, stale = rfc3339(now + 40), rfc3339(now + 29)
    assert store.renewed(held(**{"expires-at": fresh}), now, 60) == fresh
    for other in (stale, rfc3339(now + 3600), "soon"):
        assert store.renewed(held(**{"expires-at": other}), now, 60) == rfc3339(now + 60)


def test_the_file_of_the_documentation_is_yaml_that_kubernetes_people_would_write():
    assert set(yaml.safe_load(V1)) == {"namespace", "kubeconfig", "seldon-v1", "metrics", "probes"}
