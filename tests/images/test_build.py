"""`make images` calls an engine with what it is given; the engine here writes down how it is called."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = (
    '#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done > "$0.$(printf %s "$*" | cksum | cut -d" " -f1).called"\n'
)


@pytest.fixture
def build(tmp_path):
    """Runs tools/build-images with an environment; its exit code, its words, and how the engine was called."""
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("needs a clone: the images are labelled with the commit")
    for name in ("podman", "docker"):
        (tmp_path / name).write_text(ENGINE)
        (tmp_path / name).chmod(0o755)

    def run(*environments, **env):
        path = f"{tmp_path}:{os.environ['PATH']}"
        clean = {"PATH": path, "HOME": str(tmp_path), **env}
        words = [str(ROOT / "tools" / "build-images"), *environments]
        done = subprocess.run(words, env=clean, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, [file.read_text().split("\n") for file in tmp_path.glob("*.called")]

    return run


def test_all_three_are_built_from_the_base_that_is_given(build):
    code, words, calls = build(BASE="python@sha256:1", REGISTRY="registry.example/ml", TAG="7", SOURCE_DATE_EPOCH="0")
    assert code == 0, words
    assert {call[call.index("-t") + 1] for call in calls} == {
        "registry.example/ml/holdfast/data:7",
        "registry.example/ml/holdfast/model:7",
        "registry.example/ml/holdfast/serving:7",
    }
    for call in calls:
        assert {"BASE=python@sha256:1", "TORCH=cpu", "CREATED=1970-01-01T00:00:00Z"} <= set(call)
        assert call[call.index("--timestamp") + 1] == "0"


def test_a_build_for_gpus_is_seen_by_its_tag(build):
    _, _, [call] = build("model", TORCH="cuda", TAG="7")
    assert call[call.index("-t") + 1] == "localhost/holdfast/model:7-cuda"
    assert "TORCH=cuda" in call


def test_wheels_and_certificates_of_this_machine_are_mounted(build, tmp_path):
    _, _, [call] = build("model", PIP_FIND_LINKS=str(tmp_path), PIP_INDEX_URL="https://mirror.example/simple")
    assert {f"{tmp_path}:{tmp_path}:ro", f"FIND_LINKS={tmp_path}", "INDEX_URL=https://mirror.example/simple"} <= set(
        call
    )
    assert "https://mirror.example/simple:https://mirror.example/simple:ro" not in call


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"ENGINE": "no-such-engine"}, "expected no-such-engine on the PATH"),
        ({"TORCH": "rocm"}, "TORCH=rocm: expected cpu or cuda"),
        ({"ENGINE": "docker", "PIP_FIND_LINKS": "/wheels"}, "docker cannot mount it into a build"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(build, env, reason):
    code, words, calls = build(**env)
    assert code == 2
    assert reason in words
    assert not calls
