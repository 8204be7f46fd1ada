"""The real kube-apiserver of the tests of rollouts, for the manifests."""

from tests.kubernetes.conftest import serve  # noqa: F401
from tests.serving.rollout.cluster.conftest import api, assets, crds, kube, namespace, seldon  # noqa: F401
