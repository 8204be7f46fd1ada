"""What the tests of this folder share; pytest's importlib mode puts no folder of tests on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from deliveries_under_review import digits, planted  # noqa: E402, F401
