import pytest

from tests.attestation.chains import Made, signed_run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A signed run that holds; tests must not change it."""
    return signed_run(tmp_path_factory.mktemp("signed"))
