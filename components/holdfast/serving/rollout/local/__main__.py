"""`python -m holdfast.serving.rollout.local STATE`: the deployment that STATE/deployment-spec.json describes."""

import asyncio
import sys
from pathlib import Path

from holdfast.serving.rollout.local.deployment import run

if __name__ == "__main__":
    sys.exit(asyncio.run(run(Path(sys.argv[1]))))
