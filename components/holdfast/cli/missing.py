"""What brings a library that a command misses, in one line: an extra of the wheel, or an environment of the steps."""

import sys

from holdfast.errors import WrongEnvironmentError

_EXTRAS = {
    "pipelines": ("kfp", "kfp_kubernetes", "jinja2", "markupsafe", "scipy", "pyarrow"),
    "model": ("mlflow", "torch", "safetensors", "sklearn", "pandas", "art", "cleanlab", "picklescan", "cyclonedx"),
    "serving": ("mlserver", "envoy", "aiohttp", "prometheus_client"),
    "vault": ("hvac",),
    "keyless": ("sigstore",),
}
"""Extra -> the modules that it brings, for commands that belong to no environment."""


def explained(command: str, environment: str | None, error: ModuleNotFoundError) -> Exception:
    """The line for a library that is not here; a module of Holdfast, or one that no extra brings, is a bug: `error`."""
    module = (error.name or "").partition(".")[0]
    extra = environment or next((name for name, brings in _EXTRAS.items() if module in brings), None)
    if not module or module.startswith("holdfast") or extra is None:
        return error
    what = "environment" if environment in ("data", "model", "serving") else "extra"
    return WrongEnvironmentError(
        f"{command}: expected the {what} {extra!r}, found no module {module!r} in {sys.executable}; {_remedy(extra)}"
    )


def _remedy(extra: str) -> str:
    from holdfast.environments import how_to_get

    makes = how_to_get(extra)
    if makes.startswith("pip "):
        return makes
    return f"{makes} makes it, and `holdfast doctor` lists which Python has it"
