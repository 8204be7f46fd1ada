"""What components/Containerfile does to the tree of an environment, inside the build; standard library only.

image_tree.py common LOCK LOCK      the entries that two locks share, to stdout
image_tree.py rest LOCK COMMON      the entries of the first that the second has not
image_tree.py finish TREE           leave out what nothing imports, and what differs from build to build
image_tree.py bytecode TREE         compile what the steps import; the files do not name a time
image_tree.py list TREE             every path with its kind, size and time, to stdout
image_tree.py added TREE LIST INTO  copy what TREE has and LIST has not below INTO
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

EPOCH = 315532800
"""1980-01-01, the first day that a zip file can hold: the time of every file of an environment."""

UNUSED = (
    "tensorflow/include", "torch/include", "torch/share", "torch/test", "torch/bin/[!t]*", "torch/bin/test*",
    "pyarrow/include", "clang/native", "tensorboard_data_server/bin", "google/cloud/aiplatform*", "vertexai",
    "vertex_ray", "agentplatform",
)  # fmt: skip
"""Below site-packages: headers (an image has no compiler), test programs, libclang, TensorBoard's server, Vertex AI."""


def entries(lock: str) -> list[str]:
    """Each package of a lock with its hashes."""
    return [entry for entry in re.split(r"(?m)^(?=[a-z0-9])", lock) if "==" in entry.split("\n", 1)[0]]


def common(one: str, other: str) -> str:
    """The entries that both locks hold, word for word."""
    there = set(entries(other))
    return "".join(entry for entry in entries(one) if entry in there)


def rest(lock: str, without: str) -> str:
    """The entries of `lock` that `without` does not hold."""
    there = set(entries(without))
    return "".join(entry for entry in entries(lock) if entry not in there)


def settings(project: str) -> str:
    """The section [tool.uv.pip] as a `uv.toml`."""
    found = tomllib.loads(project)["tool"]["uv"]["pip"]
    return "[pip]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in sorted(found.items()))


def unused(packages: Path) -> Iterator[Path]:
    """Files and folders below site-packages that no step imports."""
    for pattern in UNUSED:
        yield from sorted(packages.glob(pattern))
    for folder in sorted(packages.rglob("tests")):
        if folder.is_dir() and any(folder.rglob("test_*.py")):
            yield folder
    yield from sorted(packages.rglob("*.a"))
    yield from sorted(packages.glob("*.dist-info/uv_cache.json"))


def remove(path: Path) -> None:
    """Removes a file or a folder, which may be gone with another."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def correct_records(packages: Path) -> None:
    """Every RECORD lists, in order, the files that are there."""
    for record in sorted(packages.glob("*.dist-info/RECORD")):
        with record.open(newline="") as file:
            rows = sorted(row for row in csv.reader(file) if row and os.path.lexists(packages / row[0]))
        with record.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def set_times(tree: Path) -> None:
    """Every file and folder is of the same time."""
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def finish(tree: Path) -> None:
    """Leaves out what nothing imports and what differs from build to build."""
    for packages in sorted(tree.glob("lib/python3*/site-packages")):
        for path in list(unused(packages)):
            remove(path)
        correct_records(packages)
    set_times(tree)


def imported(tree: Path) -> list[str]:
    """The source files that the steps' libraries and commands bring in."""
    from holdfast.cli import app  # noqa: F401
    from holdfast.steps import STEPS
    from holdfast.warm.libraries import load

    load([name for step in STEPS for name in (*step.libraries, *step.libraries_if_changed)])
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    own = {
        str(path)
        for name in ("holdfast", "holdfast_gates", "holdfast_pipelines")
        for path in tree.rglob(f"{name}/**/*.py")
    }
    return sorted(own | {file for file in files if file.startswith(f"{tree}/") and file.endswith(".py")})


COMPILE = """
import py_compile, sys
for file in sys.stdin.read().splitlines():
    py_compile.compile(file, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def write_bytecode(tree: Path) -> None:
    """Compiles in a process of its own that imported nothing: what a code object shares must not depend on it."""
    environment = {"PYTHONHASHSEED": "0"}
    subprocess.run(
        [sys.executable, "-I", "-c", COMPILE], input="\n".join(imported(tree)), text=True, check=True, env=environment
    )
    set_times(tree)


def listed(tree: Path) -> Iterator[str]:
    """Every path with what tells whether it was changed."""
    for path in sorted(tree.rglob("*")):
        found = path.lstat()
        yield f"{path.relative_to(tree)}\t{found.st_mode}\t{0 if path.is_dir() else found.st_size}"


def copy_added(tree: Path, before: Path, into: Path) -> None:
    """Copies what was not there before, or differs, with its folders and times."""
    there = set(before.read_text().splitlines())
    for line in listed(tree):
        path = tree / line.split("\t")[0]
        if line not in there and (path.is_symlink() or not path.is_dir()):
            target = into / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
    set_times(into)


def main(command: str, *arguments: str) -> None:
    """Runs one of the commands above."""
    paths = [Path(argument) for argument in arguments]
    texts = {"settings": settings, "common": common, "rest": rest}
    if command in texts:
        sys.stdout.write(texts[command](*(path.read_text() for path in paths)))
    elif command == "list":
        sys.stdout.write("\n".join(listed(paths[0])))
    else:
        {"finish": finish, "bytecode": write_bytecode, "added": copy_added}[command](*paths)


if __name__ == "__main__":
    main(*sys.argv[1:])
