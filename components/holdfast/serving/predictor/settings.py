"""MLServer's two settings files for one model, in a private folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from holdfast.artifacts.documents import InputSpec
from holdfast.artifacts.folder import Ref, replace_file
from holdfast.artifacts.regular import read_at_most
from holdfast.errors import WorkloadError
from holdfast.serving.predictor.game_day import GameDay
from holdfast.serving.predictor.options import Options
from holdfast.serving.predictor.samples import SampleLogSettings
from holdfast.serving.protocol import DATATYPES

LOOPBACK = "127.0.0.1"
IMPLEMENTATION = "holdfast.serving.predictor.runtime.HoldfastModel"
_NUMBER_BYTES = 24
"""One number in JSON: 17 digits, sign, point, exponent and comma."""
_SMALLEST_BODY, _LARGEST_BODY, _LARGEST_FILE = 2**20, 2**23, 2**20


@dataclass(frozen=True)
class Served:
    """What one server process serves."""

    name: str
    version: int
    model: Ref
    decision: Ref
    game_day: str | None = None
    options: Options = Options()
    trust: Path | None = None
    """A trust policy: whose signatures must be behind the decision."""
    incumbent: bool = False
    """It is being replaced: how old its verdict is, is not asked."""
    guard: str | None = None
    """What watches its clients, as `read_guard` gives it."""

    def as_json(self) -> dict[str, object]:
        """JSON values, with absolute paths."""
        return {
            "name": self.name,
            "version": self.version,
            "model": ref_text(self.model),
            "decision": ref_text(self.decision),
            "game_day": self.game_day,
            "options": self.options.told(),
            "trust": str(self.trust.absolute()) if self.trust else None,
            "incumbent": self.incumbent,
            "guard": self.guard,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Served":
        """Reads what `as_json` gave."""
        refs = Ref.parse(values["model"]), Ref.parse(values["decision"])
        options = Options.parse(values["options"])
        trust = Path(values["trust"]) if values.get("trust") else None
        name, incumbent = (str(values["name"]), int(values["version"])), values["incumbent"] is True
        return cls(*name, *refs, values["game_day"], options, trust, incumbent, values.get("guard"))


@dataclass(frozen=True)
class GuardParameters:
    """What a server is told about its guard."""

    calibration: Ref
    state: Path
    """Folder of what it knows about clients."""
    config: Mapping[str, object]
    """The section `guard` of a workload."""
    extraction: Ref | None = None
    """The report that a budget `auto` is read from."""

    @classmethod
    def parse(cls, given: object, below: Path = Path()) -> Self:
        """Reads `calibration` (FOLDER or FOLDER@DIGEST), `state` (a folder), and the keys of a section `guard`.

        And `extraction` (as `calibration`), which a budget `auto` needs.

        An object, or the same as a text of JSON; folders that are not absolute are `below` that of the settings.

        Raises:
            WorkloadError: it is neither, or the first two are missing.
        """
        try:
            found = json.loads(given) if isinstance(given, str) else given
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, Mapping):
            raise WorkloadError(f"guard: expected an object with calibration and state, found {str(given)[:200]!r}")
        rest = dict(found)
        calibration, state = Ref.parse(_named(rest, "calibration")), _named(rest, "state")
        extraction = Ref.parse(_named(rest, "extraction")) if "extraction" in rest else None
        if extraction is not None:
            extraction = Ref(below / extraction.folder, extraction.digest)
        return cls(Ref(below / calibration.folder, calibration.digest), below / state, rest, extraction)


@dataclass(frozen=True)
class ModelParameters:
    """What a server is told about its model: `parameters.extra` in `model-settings.json`, Seldon's parameters."""

    model: Ref
    decision: Ref
    options: Options
    game_day: GameDay | None = None
    trust: Path | None = None
    """A trust policy: whose signatures must be behind the decision."""
    incumbent: bool = False
    """It is being replaced: how old its verdict is, is not asked."""
    guard: GuardParameters | None = None
    """What watches its clients."""
    sample_log: SampleLogSettings | None = None
    """None: nothing of what is answered is kept."""

    @classmethod
    def parse(cls, given: Mapping[str, object], below: Path = Path()) -> Self:
        """Reads `model` and `decision` (FOLDER or FOLDER@DIGEST), and what else may be given.

        That is the options, `game_day`, `trust`, `incumbent`, `guard` and `sample_log`. Folders that are not absolute
        are `below` the one of the settings.

        Raises:
            WorkloadError: one is missing, unknown or has no meaning.
        """
        rest = dict(given)
        model, decision = (_named(rest, name) for name in ("model", "decision"))
        day = _named(rest, "game_day") if rest.get("game_day") else ""
        rest.pop("game_day", None)
        trust = Path(_named(rest, "trust")) if "trust" in rest else None
        incumbent = rest.pop("incumbent", False) is True
        guard = GuardParameters.parse(rest.pop("guard"), below) if "guard" in rest else None
        samples = SampleLogSettings.parse(rest.pop("sample_log")) if "sample_log" in rest else None
        model_ref, decision_ref = (Ref(below / ref.folder, ref.digest) for ref in map(Ref.parse, (model, decision)))
        options, fault = Options.parse(rest), GameDay.parse(day) if day else None
        return cls(model_ref, decision_ref, options, fault, trust, incumbent, guard, samples)


def write_settings(
    folder: Path,
    served: Served,
    spec: InputSpec,
    classes: int,
    *,
    rest: int,
    grpc: int,
    host: str = LOOPBACK,
    metrics: int | None = None,
) -> None:
    """Writes `settings.json` and `model-settings.json`; what they make listens on loopback, unless `host` is another.

    Raises:
        WorkloadError: the game day's specification has no meaning.
    """
    if served.game_day:
        GameDay.parse(served.game_day)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, value in (
        ("settings.json", server_settings(rest=rest, grpc=grpc, host=host, metrics=metrics)),
        ("model-settings.json", model_settings(served, spec, classes)),
    ):
        replace_file(folder / name, json.dumps(value, indent=1).encode())


def server_settings(*, rest: int, grpc: int, host: str = LOOPBACK, metrics: int | None = None) -> dict[str, object]:
    """No worker pool (a third more CPU for small models), no compression, and metrics only where a port is named."""
    port = {} if metrics is None else {"metrics_port": metrics}
    return {
        "debug": False,
        "host": host,
        "http_port": rest,
        "grpc_port": grpc,
        "parallel_workers": 0,
        "metrics_endpoint": None if metrics is None else "/metrics",
        **port,
        "gzip_enabled": False,
    }


def model_settings(served: Served, spec: InputSpec, classes: int, *, absolute: bool = True) -> dict[str, object]:
    """The model, its decision and (on a game day) the fault, with the shapes that clients see.

    Paths that are not made `absolute` are below the folder of the settings.
    """
    refs = {"model": served.model, "decision": served.decision}
    extra: dict[str, object] = {role: ref_text(ref, absolute=absolute) for role, ref in refs.items()}
    extra |= served.options.told()
    if served.game_day:
        extra["game_day"] = served.game_day
    if served.trust:
        extra["trust"] = str(served.trust.absolute())
    if served.incumbent:
        extra["incumbent"] = True
    if served.guard:
        extra["guard"] = served.guard
    return {
        "name": served.name,
        "implementation": IMPLEMENTATION,
        "inputs": [{"name": "input", "datatype": DATATYPES[spec.dtype], "shape": [-1, *spec.shape]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        ][: 1 if served.options.label_only else 2],
        "parameters": {"version": str(served.version), "extra": extra},
    }


def read_guard(path: Path) -> str:
    """A guard's parameters from a file of JSON, as a text with absolute folders; those in the file are next to it.

    Raises:
        WorkloadError: it is no such file.
    """
    text = read_at_most(path, _LARGEST_FILE, "settings of a guard", error=WorkloadError)
    found = GuardParameters.parse(text.decode("utf-8", "replace"), path.parent)
    places = {"calibration": ref_text(found.calibration), "state": str(found.state.absolute())}
    if found.extraction is not None:
        places["extraction"] = ref_text(found.extraction)
    return json.dumps({**found.config, **places})


def largest_body(options: Options, spec: InputSpec) -> int:
    """Most bytes in the body of one request: the option, or what `max_rows` rows need, between 1 and 8 MiB."""
    needed = options.max_rows * math.prod(spec.shape) * _NUMBER_BYTES
    return options.max_body_bytes or min(max(needed, _SMALLEST_BODY), _LARGEST_BODY)


def _named(given: dict[str, object], name: str) -> str:
    value = given.pop(name, None)
    if not isinstance(value, str) or not value:
        raise WorkloadError(f"{name}: expected a text, found {value!r}")
    return value


def ref_text(ref: Ref, *, absolute: bool = True) -> str:
    """The text that `Ref.parse` reads, with an absolute path."""
    folder = ref.folder.absolute() if absolute else ref.folder
    return f"{folder}@{ref.digest}" if ref.digest else str(folder)
