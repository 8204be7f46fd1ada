"""Whether the code that a workload names can be used, found out before anything is computed."""

import inspect

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.compute import Compute
from holdfast.errors import ModelError
from holdfast.model.own_code import asked_for, find_function, is_own
from holdfast.workload.schema import NetworkConfig, Workload


def check_network(workload: Workload, snapshot: Artifact[Snapshot] | None, settings: Compute) -> None:
    """Imports the network's and the attacks' functions; with a snapshot builds, tries and exports the network, too.

    Raises:
        ModelError: a function cannot be imported or called with these arguments, or the network does not fit the data.
    """
    settings.prepare()
    from holdfast.model.attack.own import own_plan

    for name in workload.attack.own:
        own_plan(name)
    if snapshot is None:
        _check_arguments(workload.network)
    else:
        _try_network(workload.network, snapshot, settings.seed)


def _check_arguments(network: NetworkConfig) -> None:
    name = network.architecture
    if not is_own(name):
        return
    function = find_function(name, "network")
    given = {**asked_for(function, {"shape": (), "classes": 2}), **network.arguments}
    try:
        inspect.signature(function).bind(**given)
    except (TypeError, ValueError) as error:
        raise ModelError(f"network {name!r} with {dict(network.arguments)}: {error}") from None


def _try_network(network: NetworkConfig, snapshot: Artifact[Snapshot], seed: int) -> None:
    import torch

    from holdfast.model.inputs import read_spec, read_split
    from holdfast.model.networks import build, check_logits
    from holdfast.model.train.export import export_program

    spec, classes = read_spec(snapshot), len(snapshot.document.classes)
    net = build(network, spec, classes, seed).eval()
    with torch.no_grad():
        first = net(torch.from_numpy(read_split(snapshot, "test", spec).x[:8]))
    check_logits(first, classes, name=f"network {network.architecture!r}")
    if is_own(network.architecture):
        export_program(net, spec)
