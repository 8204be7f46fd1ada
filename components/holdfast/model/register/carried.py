"""The code that a registered version carries, so that MLflow's servers can load it where Holdfast is not installed."""

import zipfile
from importlib.util import find_spec
from pathlib import Path

from holdfast.model.register import loader

LOADER = "holdfast_loader"
_PACKAGES = ("holdfast",)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_NO_BYTECODE = "A file, so that Python keeps no bytecode in this folder: it would count as a file that was added.\n"


def write_code(folder: Path) -> list[str]:
    """Writes the loader and the source of Holdfast into `folder`; returns the files, as MLflow's `code_paths`.

    The same source gives the same bytes.
    """
    folder.mkdir()
    module, code, bytecode = folder / f"{LOADER}.py", folder / loader.CODE, folder / "__pycache__"
    module.write_text(Path(loader.__file__).read_text())
    bytecode.write_text(_NO_BYTECODE)
    with zipfile.ZipFile(code, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in _PACKAGES:
            for path in _sources(package):
                name = path.relative_to(_root(package).parent).as_posix()
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return [str(path) for path in (module, code, bytecode)]


def _sources(package: str) -> list[Path]:
    return sorted(path for path in _root(package).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _root(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None, f"{package} is part of this distribution"
    assert spec.origin is not None, f"{package} is a regular package"
    return Path(spec.origin).parent
