"""`python -m holdfast.serving.predictor FOLDER`: serves the model that the settings in FOLDER name.

As `mlserver start FOLDER`, but a refused model ends the process with exit code 3 and one line before a port is opened.
"""

import asyncio
import json
import sys
from pathlib import Path

from holdfast.artifacts.folder import Ref
from holdfast.errors import HoldfastError
from holdfast.serving.predictor.admission import admit


def main(folder: Path) -> int:
    """Checks, then serves until SIGTERM; returns the exit code."""
    try:
        extra = json.loads((folder / "model-settings.json").read_bytes())["parameters"]["extra"]
        admit(Ref.parse(extra["model"]), Ref.parse(extra["decision"]))
    except HoldfastError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return _serve(folder)


def _serve(folder: Path) -> int:
    from mlserver.cli.serve import load_settings
    from mlserver.server import MLServer
    from mlserver.utils import install_uvloop_event_loop

    loaded: list[bool] = []

    async def serve() -> None:
        settings, models = await load_settings(str(folder))
        server = MLServer(settings)
        await server.start(models)
        # MLServer swallows a model's failure to load and ends as if all were well.
        loaded.extend(model.ready for model in await server._model_registry.get_models())

    install_uvloop_event_loop()
    asyncio.run(serve())
    return 0 if loaded and all(loaded) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
