"""Packages of this environment in another one, as links: an environment with nothing but some, without a download."""

from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement


def link_packages(python: Path, requirements: Iterable[str]) -> None:
    """Links these packages and all that they need, as installed here, into the environment of `python`."""
    (site,) = python.parents[1].glob("lib/python3*/site-packages")
    for path in {*_files(requirements)}:
        (site / path.name).symlink_to(path)


def _files(requirements: Iterable[str]) -> Iterator[Path]:
    """Files and folders at the top of site-packages."""
    open_names, seen = [Requirement(text).name for text in requirements], set[str]()
    while open_names:
        name = open_names.pop().lower()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        open_names += [one.name for text in found.requires or () if _is_needed(one := Requirement(text))]
        tops = {Path(str(path)).parts[0] for path in found.files or ()} - {"..", "__pycache__"}
        yield from (Path(str(found.locate_file(top))) for top in tops)


def _is_needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
