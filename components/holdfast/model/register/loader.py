"""What MLflow imports to load a registered model, copied into the version as `code/holdfast_loader.py`.

It takes the Holdfast that is installed and, where there is none, the one that came with the model: nothing is looked up
by name in an index. What is in the version's folder is pinned, but only `holdfast.load_model` and `holdfast verify`
check that: `mlflow.pyfunc.load_model` runs what it finds.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CODE = "holdfast.zip"
"""Next to this module in a version: the source of Holdfast that registered it."""


def _load_pyfunc(path: str) -> Any:
    """Called by MLflow with the version's folder `data/bundle`."""
    if (found := find_spec("holdfast")) is None or found.origin is None:
        # At the end: it must not take the place of anything that is installed.
        sys.path.append(str(Path(path).parents[1] / "code" / CODE))
    from holdfast.model.register import pyfunc

    return pyfunc._load_pyfunc(path)
