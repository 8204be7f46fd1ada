import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast_pipelines.pull_request.report import ComparedCheck, Difference, Measurement, PullRequestReport

WORKLOAD = """\
name: toy
modality: image
data: {source: digits.npz}
network: {architecture: cnn}
threat:
  norm: linf
  epsilon: 8/255
gate:
  override:
    robust_accuracy: {at_least: 0.4}
    champion_clean: {margin: 0.05}
"""
AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *AUTHOR, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with one workload on `main`."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "toy.yaml").write_text(WORKLOAD)
    (folder / "digits.npz").write_bytes(b"one")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


@pytest.fixture
def change(repository: Path) -> Callable[[str, str], str]:
    """Commits the workload with `old` replaced by `new` on a branch; gives the branch."""

    def make(old: str, new: str) -> str:
        git(repository, "checkout", "-q", "-B", "change", "main")
        text = (repository / "toy.yaml").read_text()
        assert old in text
        (repository / "toy.yaml").write_text(text.replace(old, new))
        git(repository, "commit", "-q", "-a", "-m", "two")
        git(repository, "checkout", "-q", "main")
        return "change"

    return make


@pytest.fixture
def report() -> PullRequestReport:
    """A head that lost robustness."""
    lost = ComparedCheck(
        name="base_robust", required="at least -0.050", verdict="fail", measured=-0.2, lower=-0.3, upper=-0.1,
        line=10, reason="20 lost", advice="Look at flags.npz.",
        of_base=Measurement(value=0.8, count={"k": 80, "n": 100}),
        of_head=Measurement(value=0.6, count={"k": 60, "n": 100}),
        difference=Difference(value=-0.2, lower=-0.3, upper=-0.1),
    )  # fmt: skip
    kept = ComparedCheck(
        name="clean_accuracy", required="at least 0.900", verdict="pass", measured=0.95, lower=0.93, upper=0.97,
        of_head=Measurement(value=0.95, count={"k": 95, "n": 100}),
    )  # fmt: skip
    return PullRequestReport(
        workload="toy", file="models/toy.yaml", base="b" * 40, head="a" * 40, policy_from="base", policy_name="default",
        policy="0" * 64, alpha=0.05, checks=(kept, lost), verdict="fail",
    )  # fmt: skip
