"""The simulation of whole rollouts lies beside the benchmarks, which print what the tests here hold."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))
