"""Which tests run where, and what several folders share."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
    "benchmarks": "mlserver",
    "serving": "mlserver",
    "pipelines": "kfp",
    "manifests": "kfp",
    "images": "kfp",
    "e2e": "kfp",
    "registry/test_registry.py": "mlflow",
    "test_statistics.py": "scipy",
}
LEFT_OUT = pytest.StashKey[int]()
collect_ignore = [name for name, package in NEEDS.items() if find_spec(package) is None]


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or makes what the user's private state holds."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True, scope="session")
def _plain_output() -> None:
    """Programs that tests start print no colours, also where CI asks for them (zizmor does, once it sees `CI`)."""
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "MYPY_FORCE_COLOR"):
        os.environ.pop(name, None)
    os.environ["NO_COLOR"] = "1"


def pytest_report_header() -> str:
    """Names what this environment leaves out."""
    left = f"other environments: {', '.join(collect_ignore)}" if collect_ignore else "nothing left out"
    return f"holdfast: {left}; shared data: {shared_folder() or 'absent, its tests are skipped'}"


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remembers how many tests this process leaves to `make test-all`."""
    for item in items:  # not those that -k or a person left out
        if item.get_closest_marker("nightly"):
            item.config.stash[LEFT_OUT] = item.config.stash.get(LEFT_OUT, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends the count to the process that prints the summary (pytest-xdist)."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the count, so that a test that was left out is not taken for one that passed."""
    if left := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"holdfast: {left} tests left to `make test-all`")


class _Workers:
    """What pytest-xdist asks for; each worker collects all tests, so that one count is everyone's."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended."""
        node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_configure(config: pytest.Config) -> None:
    """Hears pytest-xdist's workers, where there are any."""
    config.pluginmanager.register(_Workers())


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
