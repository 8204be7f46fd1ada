"""What a release is made of, for .github/workflows/release.yml. Standard library only.

python3.11 tools/release.py notes v0.1.0    # the changelog's part about it; exit code 1 when the tag is not the version
python3.11 tools/release.py bill model      # CycloneDX 1.6 of an image: all that its locks name, with their hashes
"""

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"data": ("data",), "model": ("model", "torch-cpu"), "serving": ("serving", "torch-cpu")}
"""Environment -> the locks that its image is made of."""


def notes(tag: str, changelog: str, version: str) -> str:
    """The changelog's part about the version.

    Raises:
        SystemExit: the tag names another version, or there is no such part.
    """
    if tag != f"v{version}":
        raise SystemExit(f"release: {tag}: expected v{version}, the version in pyproject.toml")
    found = re.search(rf"(?ms)^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog)
    if found is None or not found[1].strip():
        raise SystemExit(f"release: CHANGELOG.md: expected a part ## [{version}] with what changed, found none")
    return found[1].strip() + "\n"


def bill(environment: str, locks: str, version: str, project: str) -> dict[str, Any]:
    """The packages in the locks' text as CycloneDX 1.6; the same text gives the same bill."""
    itself = {
        "type": "container",
        "bom-ref": "image",
        "name": f"holdfast/{environment}",
        "version": version,
        "externalReferences": [{"type": "vcs", "url": project}],
    }
    components = [_component(name, number, hashes) for name, number, hashes in pins(locks)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{project}/{environment}/{version}')}",
        "version": 1,
        "metadata": {"component": itself},
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [one["bom-ref"] for one in components]}],
    }


def pins(locks: str) -> list[tuple[str, str, list[str]]]:
    """Name, version and SHA-256 hashes of every package."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", re.sub(r"(?m)^#.*\n?", "", locks))
    heads = [(re.match(r"([A-Za-z0-9._-]+)==([^\s\\]+)", entry), entry) for entry in entries]
    found = {
        head[1]: (head[1], head[2], re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)) for head, entry in heads if head
    }
    return [found[name] for name in sorted(found)]


def _component(name: str, version: str, hashes: list[str]) -> dict[str, Any]:
    # One of them is that of the file which is installed: a lock holds those of all platforms.
    allowed = [{"name": "holdfast:lock:sha256", "value": digest} for digest in hashes]
    purl = f"pkg:pypi/{name.lower()}@{version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "properties": allowed}


def main(command: str, name: str) -> None:
    """Prints what was asked for."""
    if command == "notes":
        sys.stdout.write(notes(name, (ROOT / "CHANGELOG.md").read_text(), PROJECT["version"]))
    else:
        locks = "".join((ROOT / "components" / "locks" / f"{lock}.txt").read_text() for lock in LOCKS[name])
        made = bill(name, locks, PROJECT["version"], PROJECT["urls"]["Repository"])
        sys.stdout.write(json.dumps(made, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if (
        len(sys.argv) != 3
        or sys.argv[1] not in ("notes", "bill")
        or (sys.argv[1] == "bill" and sys.argv[2] not in LOCKS)
    ):
        sys.exit("usage: release.py notes TAG | bill data|model|serving")
    main(*sys.argv[1:])
