"""The last task of a run on a cluster: the page that `holdfast run` writes, of the artifacts that the run has."""

import inspect
from collections.abc import Iterable
from typing import Any

from kfp import dsl

from holdfast import containers
from holdfast.artifacts.documents import Model, Registration, Snapshot
from holdfast.model.component import with_evidence
from holdfast.steps import STEPS, Step, writer

_TYPES = {writer(Snapshot).role: dsl.Dataset, writer(Model).role: dsl.Model}


def with_artifacts(report: Any, roles: Iterable[str]) -> Any:
    """A report that shows artifacts in these roles, too, which only some runs make."""
    return with_evidence(report, roles, "artifact")


def component(ended: str, steps: Iterable[Step]) -> Any:
    """A component that writes the page of a run that ended so (`stopped`), from the artifacts of `steps`.

    It takes what `wiring.inputs` gives for their roles, and the run's seed.
    """
    roles = [step.role for step in steps]

    def report(*given: Any) -> dsl.ContainerSpec:
        *words, seed, page = given
        artifacts = [f"--artifact={one.path}@{digest}" for one, digest in zip(words[::2], words[1::2], strict=True)]
        return dsl.ContainerSpec(
            image=containers.MODEL,
            command=["python", "-m", "holdfast", "report"],
            args=[*artifacts, *containers.options(seed=seed, out=page.path)],
        )

    report.__name__ = f"report_{ended}"
    report.__doc__ = f"Writes the report of a run that ended {ended}."
    taken: dict[str, Any] = {}
    for role in roles:
        taken |= {role: dsl.Input[_TYPES.get(role, dsl.Artifact)], f"{role}_digest": str}
    taken |= {"seed": int, "page": dsl.Output[dsl.HTML]}
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, keyword, annotation=kind) for name, kind in taken.items()]
    report.__signature__ = inspect.Signature(parameters, return_annotation=dsl.ContainerSpec)  # type: ignore[attr-defined]
    report.__annotations__ = taken | {"return": dsl.ContainerSpec}
    return dsl.container_component(report)


_BEFORE = tuple(step for step in STEPS if step.pipeline == writer(Registration).pipeline)
_JUDGED = _BEFORE[: _BEFORE.index(writer(Registration))]
_DELIVERED = _BEFORE[: 1 + max(number for number, step in enumerate(_BEFORE) if step.stops_delivery)]
report_stopped = component("stopped", _DELIVERED)
report_judged = component("judged", _JUDGED)
report_registered = component("registered", _BEFORE)
