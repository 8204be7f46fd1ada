"""A registered version needs no Holdfast from an index: it carries its own."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import holdfast
from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import load
from holdfast.errors import IntegrityError
from holdfast.model.register import carried, pyfunc
from holdfast.model.register.loader import CODE
from holdfast.model.register.step import register
from tests.environments.links import link_packages

PROGRAM = """
import json, sys
from importlib.util import find_spec
import mlflow, pandas
assert find_spec("holdfast") is None, "it is installed here"
mlflow.set_tracking_uri(sys.argv[1])
found = {}
for kind in sys.argv[2:]:
    model = mlflow.pyfunc.load_model(f"models:/demo-{kind}/1")
    found[kind] = model.predict(pandas.read_parquet(f"{kind}.parquet")).to_dict("list")
import holdfast
print(json.dumps({"code": holdfast.__file__, "answers": found}))
"""


@pytest.fixture
def foreign(tmp_path) -> Path:
    """The interpreter of an environment that holds what a version's requirements name, and no Holdfast."""
    uv = Path(__file__).parents[3] / ".uv" / "bin" / "uv"
    if not uv.exists():
        pytest.skip("needs uv: make setup")
    subprocess.run([str(uv), "venv", "-q", "--python", sys.executable, str(tmp_path / "foreign")], check=True)
    python = tmp_path / "foreign" / "bin" / "python"
    link_packages(python, pyfunc.requirements())
    return python


def package_of(folder: Path, kind: str) -> Path:
    return next((folder / "artifacts" / f"demo-{kind}").rglob("MLmodel")).parent


def test_mlflow_loads_it_where_no_holdfast_is_installed_and_leaves_the_version_as_it_was(
    chain, tracking, tmp_path, foreign
):
    kinds = ("tabular", "text")
    for kind in kinds:
        passed = chain(kind)
        given = {"decision": passed.decision, "snapshot": passed.snapshot, "evidence": passed.evidence}
        register(passed.model, tmp_path / f"registration-{kind}", tracking=tracking, **given)
        frame = pd.read_parquet(load(passed.snapshot, Snapshot).open("test.parquet")).drop(columns="label")
        frame.to_parquet(tmp_path / f"{kind}.parquet")
    command = [str(foreign), "-c", PROGRAM, tracking, *kinds]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert f"/code/{CODE}/holdfast/" in found["code"]
    for kind in kinds:
        # Every byte of the version is still the registered one: Python kept no bytecode in its folder.
        answers = holdfast.load_model(f"models:/demo-{kind}/1", tracking=tracking).predict(
            pd.read_parquet(tmp_path / f"{kind}.parquet")
        )
        assert found["answers"][kind]["class"] == answers["class"].tolist()
        np.testing.assert_allclose(found["answers"][kind]["logit_spam"], answers["logit_spam"], rtol=1e-6)


def test_nothing_in_a_version_names_a_holdfast_of_an_index(chain, tracking, tmp_path):
    passed = chain("tabular")
    given = {"decision": passed.decision, "snapshot": passed.snapshot, "evidence": passed.evidence}
    register(passed.model, tmp_path / "registration", tracking=tracking, **given)
    package = package_of(tmp_path, "tabular")
    for name in ("requirements.txt", "conda.yaml", "python_env.yaml"):
        assert "holdfast" not in (package / name).read_text(), name
    assert "pkg:pypi/holdfast" not in (package / "data" / "bundle" / "bom.cdx.json").read_text()


def test_code_that_was_changed_in_the_store_is_refused_by_our_loader(chain, tracking, tmp_path):
    passed = chain("tabular")
    given = {"decision": passed.decision, "snapshot": passed.snapshot, "evidence": passed.evidence}
    register(passed.model, tmp_path / "registration", tracking=tracking, **given)
    with zipfile.ZipFile(package_of(tmp_path, "tabular") / "code" / CODE, "a") as archive:
        archive.writestr("holdfast/planted.py", "")
    with pytest.raises(IntegrityError, match="MLmodel, or what it names, was altered in the store"):
        holdfast.load_model("models:/demo-tabular/1", tracking=tracking)


def test_the_same_source_gives_the_same_bytes_and_no_bytecode(tmp_path):
    one, two = ([Path(name) for name in carried.write_code(tmp_path / folder)] for folder in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    with zipfile.ZipFile(tmp_path / "one" / CODE) as archive:
        names = archive.namelist()
    assert "holdfast/model/register/pyfunc.py" in names
    assert not [name for name in names if name.endswith(".pyc")]
