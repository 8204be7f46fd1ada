"""Commits are written out without touching the work tree, and no name of a pull request reaches git as an option."""

from pathlib import Path

import pytest

from holdfast.errors import InputError, WorkloadError
from holdfast_pipelines.pull_request.repository import Repository
from tests.pipelines.pull_request.conftest import git


def test_a_commit_is_written_out_whole_and_the_work_tree_stays(repository, tmp_path, change):
    change("cnn", "mlp")
    (repository / "toy.yaml").write_text("edited, not committed")
    before = git(repository, "status", "--porcelain")
    found = Repository.around(repository)
    found.write_out(found.commit("change"), tmp_path / "out")
    assert "architecture: mlp" in (tmp_path / "out" / "toy.yaml").read_text()
    assert (tmp_path / "out" / "digits.npz").read_bytes() == b"one"
    assert git(repository, "status", "--porcelain") == before
    assert (repository / "toy.yaml").read_text() == "edited, not committed"


def test_files_that_git_archive_would_leave_out_are_there(repository, tmp_path):
    (repository / ".gitattributes").write_text("toy.yaml export-ignore\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "hide")
    found = Repository.around(repository)
    found.write_out(found.commit("HEAD"), tmp_path / "out")
    assert (tmp_path / "out" / "toy.yaml").is_file()


def test_no_hook_of_the_repository_runs(repository, tmp_path):
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    found = Repository.around(repository)
    found.write_out(found.commit("main"), tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("ref", ["--upload-pack=x", "-", "a..b", "main; rm x", "main\nx", "", "$(id)", "a" * 300])
def test_what_is_no_name_of_a_commit_is_refused(repository, ref):
    with pytest.raises(WorkloadError, match="expected a branch, a tag or a commit"):
        Repository.around(repository).commit(ref)


def test_every_usual_name_of_a_commit_is_taken(repository):
    git(repository, "tag", "v1.0")
    git(repository, "branch", "feature/x-1")
    found = Repository.around(repository)
    sha = git(repository, "rev-parse", "HEAD")
    assert {found.commit(ref) for ref in ("HEAD", "main", "v1.0", "feature/x-1", sha, sha[:9], "HEAD^{commit}")} == {
        sha
    }


def test_a_commit_that_is_not_there_is_one_line(repository):
    with pytest.raises(InputError, match="^gone: expected a commit of this repository, found none; fetch it"):
        Repository.around(repository).commit("gone")


def test_a_folder_without_a_repository_is_one_line(tmp_path):
    with pytest.raises(InputError, match="not a git repository"):
        Repository.around(tmp_path)


def test_a_file_is_named_from_where_one_is(repository):
    (repository / "models").mkdir()
    below = Repository.around(repository / "models")
    assert str(below.path(Path("a.yaml"))) == "models/a.yaml"
    assert str(below.path(Path("../toy.yaml"))) == "toy.yaml"
    for outside in ("../../x.yaml", "/etc/passwd"):
        with pytest.raises(WorkloadError, match="expected a file of the repository"):
            below.path(Path(outside))
