"""The images are made from the same locks as the virtual environments."""

import re
from pathlib import Path

import pytest
from tools.compare_images import differences
from tools.image_tree import EPOCH, common, copy_added, entries, finish, listed, rest

from holdfast import containers
from holdfast_pipelines.cluster import ClusterSettings

ROOT = Path(__file__).parents[2]


def recipe():
    return (ROOT / "components" / "Containerfile").read_text()


@pytest.mark.parametrize("environment", containers.ENVIRONMENTS)
def test_every_image_has_a_lock_with_hashes(environment):
    lock = (ROOT / "components" / "locks" / f"{environment}.txt").read_text()
    assert "--hash=sha256:" in lock
    assert "--require-hashes --no-deps" in recipe()


def lock(name):
    return (ROOT / "components" / "locks" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", ["uv", "torch-cpu", "torch-cuda"])
def test_torch_and_what_installs_it_come_by_hash(name):
    found = entries(lock(name))
    assert found
    assert all("--hash=sha256:" in entry for entry in found)
    assert re.search(rf"--require-hashes --no-deps .*-r (/tools/)?{name.split('-')[0]}", recipe().replace("\\\n", " "))


@pytest.mark.parametrize("name", ["torch-cpu", "torch-cuda"])
def test_images_and_virtual_environments_hold_the_same_torch(name):
    (version,) = re.findall(r"(?m)^torch==([0-9.]+)", lock(name))
    assert set(re.findall(r'"torch==([0-9.]+)"', (ROOT / "Makefile").read_text())) == {version}


def test_what_torch_needs_on_a_gpu_agrees_with_the_other_locks():
    shared = dict(pins(lock("torch-cuda"))).items() & dict(pins(lock("model"))).items()
    names = dict(pins(lock("torch-cuda"))).keys() & dict(pins(lock("model"))).keys()
    assert {name for name, _ in shared} == names


def test_images_do_not_run_as_root():
    assert re.search(r"(?m)^USER [1-9]", recipe())


def test_every_stage_is_made_from_the_one_base():
    sources = re.findall(r"(?m)^FROM (\S+)(?: AS (\S+))?$", recipe())
    stages = {name for _, name in sources}
    assert {source for source, _ in sources} - stages == {"${BASE}", "${ENVIRONMENT}"}
    assert set(containers.ENVIRONMENTS) <= stages


def pins(text):
    return re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)", text)


# --- what the build does to a tree ------------------------------------------------------------------------------------


def test_what_two_locks_share_and_what_one_adds_is_the_whole_lock():
    shared, more = common(lock("model"), lock("serving")), rest(lock("model"), lock("serving"))
    assert sorted(pins(shared) + pins(more)) == sorted(pins(lock("model")))
    assert 50 < len(pins(shared)) < len(pins(lock("serving")))


@pytest.fixture
def tree(tmp_path):
    """An environment with a package that holds headers and tests, and its RECORD."""
    packages = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    files = ["torch/include/x.h", "torch/__init__.py", "some/tests/test_a.py", "some/a.py", "some/tests_of/b.py"]
    info = ["some-1.dist-info/uv_cache.json", "some-1.dist-info/RECORD"]
    for file in files + info:
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).write_text("")
    (packages / info[1]).write_text("".join(f"{file},,\n" for file in reversed(files + info)))
    return packages


def test_a_finished_tree_has_no_headers_no_tests_and_a_correct_record(tree):
    finish(tree.parents[2])
    kept = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert kept == ["some-1.dist-info/RECORD", "some/a.py", "some/tests_of/b.py", "torch/__init__.py"]
    assert [line.split(",")[0] for line in (tree / kept[0]).read_text().splitlines()] == sorted(kept)
    assert {path.stat().st_mtime for path in tree.rglob("*")} == {EPOCH}


def test_what_an_installation_added_or_changed_is_copied_and_nothing_else(tree, tmp_path):
    root = tree.parents[2]
    (tmp_path / "before.txt").write_text("\n".join(listed(root)))
    (tree / "other").mkdir()
    (tree / "other" / "c.py").write_text("c")
    (tree / "some" / "a.py").write_text("changed")
    copy_added(root, tmp_path / "before.txt", tmp_path / "added")
    copied = sorted(path.name for path in (tmp_path / "added").rglob("*") if path.is_file())
    assert copied == ["a.py", "c.py"]


# --- whether two images hold the same ---------------------------------------------------------------------------------


def test_equal_trees_have_no_differences():
    assert differences({"a": "0 644"}, {"a": "0 644"}) == []


@pytest.mark.parametrize("other", [{}, {"a": "0 755"}, {"a": "0 644", "b": "0 644"}])
def test_a_file_that_is_missing_added_or_altered_is_a_difference(other):
    assert len(differences({"a": "0 644"}, other)) == 1


# --- GPUs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "model", "serving"),
    [
        ({}, "holdfast/model:1.2", "holdfast/serving:1.2"),
        ({"gpu": True}, "holdfast/model:1.2-cuda", "holdfast/serving:1.2"),
        ({"resources": {"attack": {"gpu": 2}}}, "holdfast/model:1.2-cuda", "holdfast/serving:1.2"),
        ({"resources": {"attack": {"gpu": 0}}}, "holdfast/model:1.2", "holdfast/serving:1.2"),
        ({"resources": {"rollout": {"gpu": 1}}}, "holdfast/model:1.2", "holdfast/serving:1.2-cuda"),
        ({"gpu": True, "images": {"model": "own@sha256:0"}}, "own@sha256:0", "holdfast/serving:1.2"),
        ({"gpu": True, "tag": "1.2-cuda"}, "holdfast/model:1.2-cuda", "holdfast/serving:1.2-cuda"),
    ],
)
def test_steps_that_ask_for_a_gpu_get_the_image_that_holds_cuda(settings, model, serving):
    found = ClusterSettings.model_validate({"tag": "1.2"} | settings)
    images = [found.image(name).removeprefix(f"{containers.NOWHERE}/") for name in ("model", "serving")]
    assert images == [model, serving]
