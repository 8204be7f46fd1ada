"""The images of the steps: the only place that names where they come from.

One image per environment; `holdfast compile --registry HOST/PATH --tag TAG` writes pipelines that pull them from a
registry of your own. Tags are immutable (the version), because KFP's cache does not see what an image holds.
"""

from typing import Any

from holdfast import __version__

REPOSITORY = "holdfast"
ENVIRONMENTS = ("data", "model", "serving")
NOWHERE = "registry.invalid"
"""In place of a registry that was not named: a host that cannot exist (RFC 2606). Without a host an engine would pull
the name from a public registry, where anybody may own it.
"""
CUDA = "-cuda"
"""How the tag of an image ends whose torch can use a GPU (`make images TORCH=cuda`)."""


def image(environment: str, *, registry: str | None = None, tag: str | None = None, cuda: bool = False) -> str:
    """The image of an environment, for example `registry.example/ml/holdfast/model:0.1.0`.

    Args:
        environment: of `ENVIRONMENTS`.
        registry: HOST/PATH above it; left out, a name that nothing can be pulled by.
        tag: this version when left out.
        cuda: whether its torch must be able to use a GPU: the tag ends in `-cuda` then.
    """
    name = f"{(registry or NOWHERE).rstrip('/')}/{REPOSITORY}/{environment}:{tag or __version__}"
    return f"{name.removesuffix(CUDA)}{CUDA}" if cuda else name


DATA, MODEL, SERVING = (image(name) for name in ENVIRONMENTS)


# --- what a component's container is started with; KFP hands in placeholders -----------------------------------------


def inputs(**artifacts: tuple[Any, object]) -> list[str]:
    """`--ROLE=FOLDER@DIGEST` for each artifact that a step reads, given with its digest under its role."""
    return [f"--{role}={artifact.path}@{digest}" for role, (artifact, digest) in artifacts.items()]


def options(**values: object) -> list[str]:
    """`--NAME=VALUE` for each option, with dashes in its name."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


MESSAGE = "{{$}}"
"""KFP's message about a step (`holdfast.executor`): its placeholder in a component's arguments."""
EXECUTOR_INPUT = "--executor-input="
"""The option with that message."""


def outputs(artifact: Any, digest: object, verdict: object, page: Any = None) -> list[str]:
    """Where a step writes its artifact, the files for the artifact's digest and verdict, and what Kubeflow's UI shows.

    That is named in KFP's message, but for the place of the step's page, if it has one.
    """
    written = [f"--out={artifact.path}", f"--digest-file={digest}", f"--verdict-file={verdict}"]
    return [*written, EXECUTOR_INPUT + MESSAGE, *([] if page is None else [f"--page-file={page.path}"])]
