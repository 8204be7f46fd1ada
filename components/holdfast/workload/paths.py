"""Where the files of a workload are: in the file its paths are relative to its folder."""

import sys
from pathlib import Path

from holdfast.artifacts.folder import Ref
from holdfast.artifacts.regular import resolved
from holdfast.errors import WorkloadError
from holdfast.workload.addresses import is_remote
from holdfast.workload.schema import Workload


def absolute(workload: Workload, folder: Path) -> Workload:
    """The workload with every path absolute; whether something is there is not looked at."""
    data, schema = workload.data, workload.schema_
    places = {"source": _place(folder, data.source), "test": data.test and _place(folder, data.test)}
    return workload.model_copy(
        update={
            "data": data.model_copy(update={**places, "review": data.review and _review(folder, data.review)}),
            "schema_": schema.model_copy(update={"path": schema.path and _place(folder, schema.path)}),
        }
    )


def own_functions(workload: Workload) -> list[str]:
    """The `module:function` names of a workload: its network and its attacks."""
    return [name for name in (workload.network.architecture, *workload.attack.own) if ":" in name]


def make_importable(workload: Workload, folder: Path) -> None:
    """Puts the workload's folder on the module path of this process when the workload names code of its own."""
    place = str(folder.resolve())
    if own_functions(workload) and place not in sys.path:
        sys.path.insert(0, place)


def _place(folder: Path, name: str) -> str:
    return name if is_remote(name) else str(resolved(folder, Path(name), WorkloadError))


def _review(folder: Path, name: str) -> str:
    ref = Ref.parse(name)
    place = resolved(folder, ref.folder, WorkloadError)
    return f"{place}@{ref.digest}" if ref.digest else str(place)
