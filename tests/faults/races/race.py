"""Races for bytes that no gate passed: a hostile writer swaps a model's files while it is admitted and loaded.

The writer knows the model's folder and writes as fast as it can: in place, by rename, half a file. Whoever got through
is asked the same rows; an answer that is not the judged model's counts as unverified bytes served.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.artifacts.folder import Ref
from holdfast.processes import dying_with_us
from tests.faults.live.bundles import NAME, Bundles

if TYPE_CHECKING:
    from holdfast.serving.predictor.core import Predictor

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Raced:
    """What came of races."""

    races: int
    served: int
    """How many let the model through."""
    refused: int
    unverified: int
    """Answers of other bytes than the judged ones."""


@contextmanager
def swapping(model: Path, good: Path, evil: Path) -> Iterator[None]:
    """A process that keeps swapping the weights of `model`, which are those of `good`, for those of `evil` and back."""
    files = [model / WEIGHTS, good / "model" / WEIGHTS, evil / "model" / WEIGHTS]
    shutil.copyfile(files[1], files[0])
    writer = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("swap.py")), *(str(file) for file in files)],
        preexec_fn=dying_with_us(signal.SIGKILL),
    )
    try:
        yield
    finally:
        writer.kill()
        writer.wait()


def race_loads(bundles: Bundles, folder: Path, races: int, how: str = "ours") -> Raced:
    """`load_predictor` itself (or what it must not be, `naive`), in a process of its own."""
    command = [sys.executable, "-m", "tests.faults.races.race", str(bundles.candidate), str(bundles.evil), str(folder)]
    done = subprocess.run([*command, str(races), how], capture_output=True, text=True, timeout=600, check=True)
    return Raced(**json.loads(done.stdout))


def _race_loads(candidate: Path, evil: Path, folder: Path, races: int, how: str) -> Raced:
    import numpy as np
    from safetensors import SafetensorError

    from holdfast.errors import HoldfastError
    from holdfast.serving.predictor.core import load_predictor

    loading = {"ours": load_predictor, "naive": _hash_then_open}[how]
    model, decision = _copy(candidate, folder)
    with np.load(candidate / "replay.npz", allow_pickle=False) as arrays:
        rows = arrays["x"][:50]
    right = load_predictor(model, decision).answer(rows)
    served = refused = unverified = 0
    with swapping(model.folder, candidate, evil):
        while served + refused < races:
            try:
                found = loading(model, decision).answer(rows)
            except (HoldfastError, SafetensorError):
                refused += 1
                continue
            served += 1
            unverified += not np.array_equal(found.probabilities, right.probabilities)
    return Raced(races, served, refused, unverified)


def _hash_then_open(model: Ref, decision: Ref) -> "Predictor":
    """What a window looks like: the file is hashed by its name, then opened by its name."""
    from safetensors.torch import load

    from holdfast.model.networks import build
    from holdfast.serving.predictor.admission import admit
    from holdfast.serving.predictor.core import Predictor
    from holdfast.workload.schema import NetworkConfig

    artifact = admit(model, decision)
    path = artifact.path(WEIGHTS)
    network = build(NetworkConfig(architecture="cnn"), artifact.document.input, 10, seed=0)
    network.load_state_dict(load(path.read_bytes()))
    return Predictor(artifact, network.eval())


def _copy(candidate: Path, folder: Path) -> tuple[Ref, Ref]:
    from holdfast.artifacts.documents import Model
    from holdfast.artifacts.folder import load

    digest = load(candidate / "model", Model).digest
    shutil.copytree(candidate, folder / "bundle")
    return Ref(folder / "bundle" / "model", digest), Ref(folder / "bundle" / "decision")


def race_servers(bundles: Bundles, folder: Path, races: int) -> Raced:
    """Server processes that start while the writer writes; who answers is compared with the judged model's answer."""
    folder.mkdir(parents=True)
    model, decision = _copy(bundles.candidate, folder)
    request, right = _question(bundles, folder)
    served = refused = unverified = 0
    for number in range(races):
        with swapping(model.folder, bundles.candidate, bundles.evil):
            found = started(model, decision, folder / f"server-{number}", request)
        refused += found is None
        served += found is not None
        unverified += found is not None and found != right
    return Raced(races, served, refused, unverified)


def question_of(bundles: Bundles) -> bytes:
    """A request with the candidate's first row."""
    import numpy as np

    from holdfast.serving.protocol import body

    with np.load(bundles.candidate / "replay.npz", allow_pickle=False) as arrays:
        return body(arrays["x"][0])


def _question(bundles: Bundles, folder: Path) -> tuple[bytes, object]:
    """A request, and the answer of a server that was not disturbed."""
    request = question_of(bundles)
    model, decision = _copy(bundles.candidate, folder / "quiet")
    right = started(model, decision, folder / "quiet-server", request)
    if right is None:
        raise RuntimeError("expected the undisturbed server to answer, found that it was refused")
    return request, right


def started(model: Ref, decision: Ref, folder: Path, request: bytes, trust: Path | None = None) -> object:
    """What a server that was started now answers; None when it refused the model."""
    from holdfast.artifacts.documents import InputSpec
    from holdfast.processes import reserved_ports
    from holdfast.serving.predictor.settings import Served, write_settings

    spec = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
    with reserved_ports(2) as ports:
        write_settings(folder, Served(NAME, 2, model, decision, trust=trust), spec, 10, rest=ports[0], grpc=ports[1])
        server = subprocess.Popen(
            [sys.executable, "-m", "holdfast.serving.predictor", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=dying_with_us(signal.SIGKILL),
        )
        try:
            return _ask(server, f"http://127.0.0.1:{ports[0]}/v2/models/{NAME}/infer", request)
        finally:
            server.kill()
            server.wait()


def _ask(server: "subprocess.Popen[bytes]", url: str, request: bytes) -> object:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        asked = urllib.request.Request(url, request, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return json.loads(answer.read())["outputs"]
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return None


if __name__ == "__main__":
    candidate, evil, folder = (Path(word) for word in sys.argv[1:4])
    done = _race_loads(candidate, evil, folder, int(sys.argv[4]), sys.argv[5])
    sys.stdout.write(json.dumps(done.__dict__) + "\n")
