"""What a local run adds to the commands of its steps, where it has keys."""

import pytest

from holdfast_pipelines.signing import Signing
from tests.attestation.chains import make_keys


@pytest.fixture
def signing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_keys(tmp_path / "keys")
    return Signing.of(tmp_path / "keys", tmp_path / "run")


def test_the_gate_reads_waivers_where_people_signed_some_and_hands_them_on(signing, tmp_path):
    assert signing.words("gate") == []
    (tmp_path / ".holdfast" / "waivers").mkdir(parents=True)
    assert signing.words("gate") == [
        f"--waivers={tmp_path}/.holdfast/waivers",
        f"--trust={tmp_path}/keys/trust.yaml",
        f"--attestations={tmp_path}/run/attestations",
    ]


def test_without_keys_nothing_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".holdfast" / "waivers").mkdir(parents=True)
    assert Signing.of(None, tmp_path / "run").words("gate") == []


@pytest.mark.parametrize(("step", "words"), [("train", 0), ("baseline", 1), ("register", 3), ("rollout", 1)])
def test_only_those_that_take_a_model_in_ask_for_signatures(signing, step, words):
    assert len(signing.words(step)) == words
