"""Whether two images hold the same files: `python tools/compare_images.py IMAGE IMAGE [--engine podman]`.

Compared are kind, mode, owner, link and content (SHA-256) of every path, and what a container is started with; times
are not. Prints the tree's digest, or up to twenty differences; exit code 1 when there are any. Standard library only.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator

SHOWN = 20
STARTED_WITH = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts", "Volumes", "Labels")


def files(engine: str, image: str) -> dict[str, str]:
    """Path -> what it is, of an image's whole tree."""
    name = subprocess.run([engine, "create", image, "true"], check=True, capture_output=True, text=True).stdout.strip()
    try:
        export = subprocess.Popen([engine, "export", name], stdout=subprocess.PIPE)
        with export, tarfile.open(fileobj=export.stdout, mode="r|") as tar:
            return dict(_described(tar))
    finally:
        subprocess.run([engine, "rm", "--force", name], check=True, capture_output=True)


def _described(tar: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    for member in tar:
        content = ""
        if member.isfile() and (stream := tar.extractfile(member)):
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        what = (member.type.decode(), f"{member.mode:o}", str(member.uid), str(member.gid), member.linkname, content)
        yield member.name, " ".join(what)


def started_with(engine: str, image: str) -> dict[str, str]:
    """What the configuration of an image says about its containers."""
    done = subprocess.run([engine, "image", "inspect", image], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)[0]["Config"]
    return {key: json.dumps(found.get(key), sort_keys=True) for key in STARTED_WITH}


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """A line for each key that both have not, or not alike."""
    keys = sorted(one.keys() | other.keys())
    return [
        f"{key}: {one.get(key, 'not there')} | {other.get(key, 'not there')}"
        for key in keys
        if one.get(key) != other.get(key)
    ]


def digest(tree: dict[str, str]) -> str:
    """SHA-256 over the sorted lines of a tree."""
    return hashlib.sha256("".join(f"{path} {what}\n" for path, what in sorted(tree.items())).encode()).hexdigest()


def main(words: list[str]) -> int:
    """Compares the two images that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("images", nargs=2)
    parser.add_argument("--engine", default="podman")
    given = parser.parse_args(words)
    trees = [files(given.engine, image) for image in given.images]
    found = differences(*trees) + differences(*(started_with(given.engine, image) for image in given.images))
    shown = "\n".join(found[:SHOWN]) or f"equal: {len(trees[0])} paths, {digest(trees[0])}"
    sys.stdout.write(f"{shown}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
