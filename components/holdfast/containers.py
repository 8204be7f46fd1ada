"""The images of the steps: the only place that names where they come from.

One image per environment; `holdfast compile --registry HOST/PATH --tag TAG` writes pipelines that pull them from a
registry of your own. Tags are immutable (the version), because KFP's cache does not see what an image holds.
"""

from holdfast import __version__

REPOSITORY = "holdfast"
ENVIRONMENTS = ("data", "model", "serving")


def image(environment: str, *, registry: str | None = None, tag: str | None = None) -> str:
    """The image of an environment, for example `holdfast/model:0.1.0`, below `registry` when one is given."""
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    return f"{prefix}{REPOSITORY}/{environment}:{tag or __version__}"


DATA, MODEL, SERVING = (image(name) for name in ENVIRONMENTS)
