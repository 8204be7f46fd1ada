"""A promoted model that is taken back by its proof in operation, against a real API server and real traffic."""

import pytest

from holdfast.errors import RolloutError
from holdfast.serving.operation.take_back import move_on_cluster
from holdfast.serving.rollout.engine.machine import State
from tests.serving.rollout.cluster.test_rollouts import NEW, OLD, conduct  # noqa: F401


@pytest.mark.parametrize("version", ["seldon-v1", "kserve"])
def test_all_traffic_goes_to_what_the_target_names_and_no_client_loses_an_answer(
    kube, operator, champion, make_target, mesh, objects, version
):
    champion(version)
    with mesh.clients() as bad:
        move_on_cluster(make_target(version), kube, "decision-1", 20)
    assert (objects.uri(version), objects.left(version)) == (NEW, False)
    assert bad == []


def test_while_a_rollout_is_under_way_its_own_tests_watch(conduct, make_target, kube):  # noqa: F811
    controller, _ = conduct("seldon-v1")
    controller.store.write("intent", {"state": State.CANARY})
    other = make_target("seldon-v1").model_copy(deep=True)
    found = other.section.candidate
    moved = found.model_copy(update={"graph": {**found.graph, "modelUri": OLD}}) if hasattr(found, "graph") else found
    section = other.section.model_copy(update={"candidate": moved})
    with pytest.raises(RolloutError, match="another rollout is under way"):
        move_on_cluster(other.model_copy(update={"seldon_v1": section}), kube, "decision-2", 5)
