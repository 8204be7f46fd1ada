"""Only `step.py` and `artifacts/` touch files, and the modules of a short table, each with its reason.

A method takes arrays and numbers and returns values: it can be tested with small arrays, and what it reads was checked
against its digest before. The test reads the syntax of every module of the product, not what happens when it runs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT / name for name in ("components/holdfast", "gates/holdfast_gates", "pipelines/holdfast_pipelines")]
FUNCTIONS = {
    "open", "io.open", "mmap.mmap", "sqlite3.connect", "tarfile.open", "gzip.open", "zipfile.ZipFile",
    "os.fdopen", "os.link", "os.listdir", "os.makedirs", "os.mkdir", "os.open", "os.remove", "os.rename", "os.replace",
    "os.rmdir", "os.scandir", "os.symlink", "os.truncate", "os.unlink", "os.walk",
    "numpy.fromfile", "numpy.genfromtxt", "numpy.load", "numpy.loadtxt", "numpy.memmap", "numpy.save", "numpy.savez",
    "numpy.savez_compressed", "pandas.read_csv", "pandas.read_parquet", "pyarrow.csv.open_csv", "pyarrow.csv.read_csv",
    "pyarrow.parquet.ParquetFile", "pyarrow.parquet.read_table", "pyarrow.parquet.write_table", "pyarrow.memory_map",
    "safetensors.safe_open", "safetensors.torch.load_file", "safetensors.torch.save_file",
    "torch.load", "torch.save", "torch.export.load", "torch.export.save", "torch.jit.load",
}  # fmt: skip
MODULES = ("shutil.", "tempfile.")
"""Modules of which every function touches files, but for these two:"""
HARMLESS = {"shutil.get_terminal_size", "shutil.which"}
METHODS = {
    "extractall", "hardlink_to", "mkdir", "read_bytes", "read_text", "rename", "rmdir", "symlink_to", "touch", "unlink",
    "write_bytes", "write_text",
}  # fmt: skip
MODES = set("rwxab+t")
MEMORY = {"io.BytesIO", "io.StringIO", "pyarrow.BufferReader"}

ALLOWED = {
    "a delivery is fetched, read in its own format, and written row by row": [
        "data/snapshot/archives.py", "data/snapshot/delivered.py", "data/snapshot/download.py", "data/snapshot/npz.py",
        "data/snapshot/parquet.py", "data/snapshot/rows.py", "data/snapshot/sources/query.py",
        "data/snapshot/sources/stores.py", "data/snapshot/sources/take.py",
    ],
    "rows of an artifact, from a stream whose blocks are checked": ["modality/frames.py"],
    "the source that a registered version carries": ["model/register/carried.py"],
    "the state of a training that may be killed": ["model/train/checkpoint.py"],
    "what a job of several pods reads and writes, on their volume; logs of processes": [
        "model/train/launch.py", "model/train/workers.py",
    ],
    "what people decided about suspect rows": ["quarantine/reviews.py"],
    "keys, and signed statements next to artifacts": ["attestation/keys.py", "attestation/store.py"],
    "the files of a registered version, and the registry's own file": [
        "registry/client.py", "registry/entry.py", "registry/version.py",
    ],
    "the file that a person wrote, or asked for": [
        "data/snapshot/inspection/commands.py", "cli/pipelines.py", "cli/signing.py", "options.py",
    ],
    "the kernel's files about processes and libraries": ["processes.py", "warm/libraries.py"],
    "descriptors of child processes": ["limited.py", "warm/children.py", "warm/server.py"],
    "the settings of a model server": ["cli/serving.py", "serving/predictor/settings.py"],
    "the log of what a model server answered": ["serving/predictor/samples.py"],
    "reports of a monitor, from run to run": ["monitor/kept.py"],
    "what a guard of a promoted model saw, over restarts; adversarial rows": [
        "cli/rollout/guard.py", "serving/operation/loop.py",
    ],
    "bundles for the pods of a cluster, and the target that names one": [
        "cli/rollout/candidate.py", "serving/store.py",
    ],
    "credentials of a cluster, as their files have them now": [
        "http_client.py", "kubernetes/access.py", "kubernetes/exec_plugin.py",
    ],
    "the state of a rollout, which outlives its driver": [
        "serving/rollout/engine/journal.py", "serving/rollout/engine/requests.py", "serving/rollout/matchup.py",
        "serving/rollout/record.py", "serving/rollout/registry_worker.py",
    ],
    "processes of a rollout on this machine: logs, sockets, settings": [
        "serving/envoy/process.py", "serving/rollout/local/deployment.py", "serving/rollout/local/launch.py",
        "serving/rollout/local/run.py", "serving/rollout/local/servers.py", "serving/rollout/local/supersede.py",
    ],
    "what a guard knows of clients, which outlives its server": [
        "serving/guard/store.py", "serving/predictor/guarding.py",
    ],
    "what others read while a rollout runs": [
        "serving/rollout/reporting/log.py",
        "serving/rollout/reporting/timeline.py",
    ],
    "rows that are sent, and what came back": [
        "serving/rollout/traffic/rows.py", "serving/rollout/traffic/sender.py",
    ],
    "what Kubeflow reads back about a step": ["executor.py"],
    "what steps made before, on a disk or a volume": ["pod_cache.py", "reuse.py"],
    "environments of the steps, and the locks that they are made of": [
        "environments/create.py", "environments/installed.py", "environments/places.py",
    ],
    "compiled pipelines": ["compiled.py", "submit.py", "submit_monitor.py"],
    "the folder of a run on this machine: steps, logs": [
        "local.py", "parameters.py", "process.py", "run.py", "warm.py",
    ],
    "the base branch's files, and the folder of a pull request's report": [
        "pull_request/measuring.py", "pull_request/repository.py", "pull_request/results.py",
    ],
    "pages and their templates": [
        "rendering/page.py", "report/gathered.py", "report/page.py",
    ],
    "an exercise plays in a folder of its own, with deliveries, keys and forged models": [
        "gameday/exercises.py", "gameday/play.py",
    ],
    "the demo makes its deliveries, its keys and a tampered model": [
        "demo/acts.py", "demo/copied.py", "demo/pages.py", "demo/runs.py", "demo/signed.py",
    ],
}  # fmt: skip
"""Reason -> the other modules that touch files, by their path in their package."""


def aliases(tree: ast.Module) -> dict[str, str]:
    """Local name -> the module or the function that it was imported from."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                first = name.name.partition(".")[0]
                found[name.asname or first] = name.name if name.asname else first
        if isinstance(node, ast.ImportFrom):
            found |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return found


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """`numpy.load` for `np.load`; begins with a dot where the object has no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, names)}.{node.attr}"
    return ""


def is_method(call: ast.Call, name: str) -> bool:
    """Whether a method of this name is called."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == name


def opens_an_artifact(call: ast.Call) -> bool:
    """Whether this is `Artifact.open(name)`, which gives bytes that were checked; a path's `open` takes a mode."""
    if not is_method(call, "open") or not call.args:
        return False
    first = call.args[0]
    return not (isinstance(first, ast.Constant) and set(str(first.value)) <= MODES)


def in_memory(tree: ast.Module, names: dict[str, str]) -> set[str]:
    """Variables that hold a file in memory."""
    made = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    held = [node.targets for node in made if full_name(node.value.func, names) in MEMORY]  # type: ignore[attr-defined]
    return {target.id for targets in held for target in targets if isinstance(target, ast.Name)}


def touches(source: str) -> list[tuple[int, str]]:
    """Line and name of each mention of what opens, reads, writes, moves or removes a file."""
    tree = ast.parse(source)
    names = aliases(tree)
    memory = in_memory(tree, names)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    harmless = {call.func for call in calls if any(_is_memory(word, names, memory) for word in call.args)}
    found = [(call.lineno, "open") for call in calls if is_method(call, "open") and not _is_known(call, names)]
    found += [(call.lineno, "replace") for call in calls if _moves(call)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and node not in harmless and _is_file_name(node, names):
            found.append((node.lineno, full_name(node, names).lstrip(".")))
    return sorted(found)


def _is_memory(word: ast.expr, names: dict[str, str], memory: set[str]) -> bool:
    if isinstance(word, ast.Call):
        return opens_an_artifact(word) or full_name(word.func, names) in MEMORY
    return isinstance(word, ast.Name) and word.id in memory


def _is_known(call: ast.Call, names: dict[str, str]) -> bool:
    """Checked bytes of an artifact; or a function, which FUNCTIONS has."""
    name = full_name(call.func, names)
    return name in FUNCTIONS or opens_an_artifact(call)


def _is_file_name(node: ast.Name | ast.Attribute, names: dict[str, str]) -> bool:
    if not isinstance(node.ctx, ast.Load):
        return False
    name = full_name(node, names)
    if name in FUNCTIONS or name.startswith(MODULES):
        return name not in HARMLESS
    return isinstance(node, ast.Attribute) and node.attr in METHODS


def _moves(call: ast.Call) -> bool:
    """`path.replace(other)`; a string's `replace` takes two arguments, a date's and a dataclass's have keywords."""
    return is_method(call, "replace") and len(call.args) == 1 and not call.keywords


def modules() -> Iterator[tuple[str, Path]]:
    """The product's modules, by their path in their package."""
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            yield str(path.relative_to(package)), path


@pytest.mark.parametrize(
    "line",
    [
        'open("a")',
        'path.open("rb")',
        "path.open()",
        "path.read_text()",
        "(folder / name).write_bytes(data)",
        "list(map(Path.read_bytes, paths))",
        "stack.callback(path.unlink)",
        "path.replace(other)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.savez(path, x=x)",
        "import os\nos.open(path, os.O_RDONLY)",
        "from os import fdopen\nfdopen(descriptor)",
        "import shutil\nshutil.rmtree(folder)",
        "from tempfile import TemporaryDirectory\nTemporaryDirectory()",
        "def f():\n    import sqlite3\n    return sqlite3.connect(path)",
        "import zipfile as z\nz.ZipFile(path)",
        "import torch\ntorch.export.save(program, path)",
    ],
)
def test_each_way_to_touch_a_file_is_found(line):
    assert touches(line)


@pytest.mark.parametrize(
    "line",
    [
        'text.replace("a", "b")',
        "moment.replace(tzinfo=UTC)",
        'artifact.open("a.npz").read()',
        'import numpy as np\nnp.load(artifact.open("a.npz"), allow_pickle=False)',
        "import io, zipfile\nzipfile.ZipFile(io.BytesIO(data))",
        "import io, torch\nbuffer = io.BytesIO()\ntorch.save(state, buffer)",
        'import shutil\nshutil.which("envoy")',
        "if connection.open: pass",
        "path.exists()",
    ],
)
def test_what_touches_no_file_is_not_found(line):
    assert touches(line) == []


def test_only_steps_artifacts_and_the_table_touch_files():
    listed = {name for names in ALLOWED.values() for name in names}
    for name, path in modules():
        if path.name != "step.py" and not name.startswith("artifacts/") and name not in listed:
            found = [f"{name}:{line}: {what}" for line, what in touches(path.read_text())]
            assert not found, f"{found[0]}: only step.py and artifacts/ touch files; ALLOWED has the other modules"


def test_the_table_has_no_module_that_touches_no_file():
    there = {name for name, path in modules() if touches(path.read_text())}
    assert [name for names in ALLOWED.values() for name in names if name not in there] == []
