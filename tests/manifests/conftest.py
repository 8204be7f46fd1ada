"""The real kube-apiserver of the tests of rollouts, and a model of the operators, for the manifests."""

from tests.kubernetes.conftest import serve  # noqa: F401
from tests.serving.rollout.cluster.conftest import (  # noqa: F401
    api,
    assets,
    champion,
    crds,
    knative,
    kube,
    mesh,
    namespace,
    operator,
    seldon,
)
