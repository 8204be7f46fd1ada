"""Components made of a step's own: of a part of its work, of what joins the parts, of one that reads more."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kfp import dsl

Given = Mapping[str, Any]
"""The arguments of a component by name; when it is made, they are placeholders."""


def part_of(whole: Any) -> Any:
    """The component of a shard of the step whose component is `whole`: it has the input `shard`, `I/N`."""
    return _extended(whole, f"{whole.name}_part", {"shard": str}, lambda given: [f"--shard={given['shard']}"])


def joined_of(whole: Any, count: int) -> Any:
    """The component that joins `count` parts: it has the inputs `part_1`, `part_1_digest` and so on."""
    names = [f"part_{number}" for number in range(1, count + 1)]
    added = {name: dsl.Input[dsl.Artifact] for name in names} | {f"{name}_digest": str for name in names}
    return _extended(
        whole, whole.name, added, lambda given: [f"--part={given[n].path}@{given[f'{n}_digest']}" for n in names]
    )


def with_job(whole: Any) -> Any:
    """The component of a step that has a job of the cluster do its work: it has the input `job`."""
    return _extended(whole, whole.name, {"job": str}, lambda given: [f"--job={given['job']}"])


def with_evidence(whole: Any, roles: Iterable[str], option: str = "") -> Any:
    """The component of a step that also reads artifacts in these roles, each with its digest; without any, the same.

    The option of its command is that of the role, or `option` for all.
    """
    names = tuple(roles)
    if not names:
        return whole
    added = {name: kind for role in names for name, kind in ((role, dsl.Input[dsl.Artifact]), (f"{role}_digest", str))}
    return _extended(
        whole,
        whole.name,
        added,
        lambda given: [f"--{option or name}={given[name].path}@{given[f'{name}_digest']}" for name in names],
    )


def _extended(whole: Any, name: str, added: Given, words: Callable[[Given], Iterable[str]]) -> Any:
    """A component with more inputs, whose command has more words."""
    own = inspect.signature(whole.pipeline_func).parameters
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [*(inspect.Parameter(one, kind, annotation=of) for one, of in added.items()), *own.values()]

    def made(*arguments: Any) -> dsl.ContainerSpec:
        given = dict(zip([one.name for one in parameters], arguments, strict=True))
        spec = whole.pipeline_func(*(given[one] for one in own))
        return dsl.ContainerSpec(image=spec.image, command=spec.command, args=[*spec.args, *words(given)])

    made.__name__, made.__doc__ = name, whole.description
    made.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return dsl.container_component(made)
