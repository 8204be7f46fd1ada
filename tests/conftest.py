"""Which tests run where, and what several folders share."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's matter.
settings.register_profile("holdfast", deadline=None)
settings.load_profile("holdfast")

ROOT = Path(__file__).parents[1]
NEEDS = {
    "data": "tensorflow_data_validation",
    "model": "torch",
    "gates": "scipy",
    "serving": "mlserver",
    "pipelines": "kfp",
    "manifests": "kfp",
    "e2e": "kfp",
    "test_registry.py": "mlflow",
}
collect_ignore = [name for name, package in NEEDS.items() if find_spec(package) is None]


def pytest_report_header() -> str:
    """Says what this environment leaves out."""
    left = f"other environments: {', '.join(collect_ignore)}" if collect_ignore else "nothing left out"
    return f"holdfast: {left}; shared data: {shared_folder() or 'absent, its tests are skipped'}"


def shared_folder() -> Path | None:
    """The shared data sets, where they exist."""
    folder = Path(os.environ.get("HOLDFAST_SHARED", ROOT.parent / "shared"))
    return folder if (folder / "data").is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data sets; skips, loudly, where it does not exist."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("needs the shared data sets: set HOLDFAST_SHARED to their folder")
    return folder / "data"
