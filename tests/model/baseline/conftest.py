"""The champions that baseline fetches are the models that register put there: same fixtures."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[1] / "register" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("register_fixtures", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

chain, empty_mlflow, tracking = _MODULE.chain, _MODULE.empty_mlflow, _MODULE.tracking
toys_that_count = _MODULE.toys_that_count
