"""The drivers for a cluster, one row each: the name in `--driver`, which is also that of the target file's section."""

from collections.abc import Mapping

from holdfast.serving.rollout.cluster.kserve import KServe
from holdfast.serving.rollout.cluster.protocol import ClusterDriver
from holdfast.serving.rollout.cluster.seldon_v1 import SeldonV1
from holdfast.serving.rollout.cluster.seldon_v2 import SeldonV2

DRIVERS: Mapping[str, type[ClusterDriver]] = {
    "seldon-v1": SeldonV1,
    "seldon-v2": SeldonV2,
    "kserve": KServe,
}
