import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import engine


@pytest.fixture(scope="session")
def images() -> None:
    """Skips, with the reason, where no container can be run."""
    if reason := engine.missing():
        pytest.skip(reason)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Path]:
    """A folder whose contents may belong to the user of the pods."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)
