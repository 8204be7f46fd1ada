"""`python -m holdfast.serving.predictor FOLDER`: serves the model that the settings in FOLDER name.

As `mlserver start FOLDER`, but a refused model ends the process before anything heavy is imported or a port is opened.
"""

import asyncio
import json
import sys
from pathlib import Path

from holdfast.artifacts.regular import read_at_most
from holdfast.errors import HoldfastError, WorkloadError
from holdfast.serving.predictor.admission import admit_named
from holdfast.serving.predictor.settings import ModelParameters, largest_body

_MAX_BYTES = 2**20


def main(folder: Path) -> int:
    """Checks, then serves until SIGTERM; returns the exit code."""
    try:
        extra = _read_extra(folder / "model-settings.json")
        artifact = admit_named(extra)
    except HoldfastError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return _serve(folder, largest_body(extra.options, artifact.document.input))


def _read_extra(path: Path) -> ModelParameters:
    try:
        extra = json.loads(read_at_most(path, _MAX_BYTES, "settings", error=WorkloadError))["parameters"]["extra"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WorkloadError(f"{path}: expected JSON with parameters.extra, found {str(error)[:200]!r}") from None
    if not isinstance(extra, dict):
        found = type(extra).__name__
        raise WorkloadError(f"{path}: expected parameters.extra to be an object, found {found}")
    return ModelParameters.parse(extra, path.parent)


def _serve(folder: Path, max_body_bytes: int) -> int:
    from mlserver.cli.serve import load_settings
    from mlserver.server import MLServer
    from mlserver.utils import install_uvloop_event_loop

    from holdfast.serving.predictor.grpc_intake import check_grpc
    from holdfast.serving.predictor.intake import guard

    check_grpc()
    loaded: list[bool] = []

    async def serve() -> None:
        settings, models = await load_settings(str(folder))
        server = MLServer(settings)
        for model in models:
            guard(server, model.name, str(model.parameters and model.parameters.version), max_body_bytes)
        await server.start(models)
        # MLServer swallows a model's failure to load and ends as if all were well.
        loaded.extend(model.ready for model in await server._model_registry.get_models())

    install_uvloop_event_loop()
    asyncio.run(serve())
    return 0 if loaded and all(loaded) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m holdfast.serving.predictor FOLDER")
    sys.exit(main(Path(sys.argv[1])))
