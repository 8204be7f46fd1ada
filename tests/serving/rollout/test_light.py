"""A rollout's controller stays small: it lives for days next to the servers that it watches."""

import subprocess
import sys

HEAVY = ["aiohttp", "kfp", "mlflow", "mlserver", "numpy", "pandas", "pyarrow", "scipy", "torch"]


def test_the_controller_imports_nothing_heavy() -> None:
    code = f"import sys, holdfast.serving.rollout.step; print(sorted({{*{HEAVY}}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
