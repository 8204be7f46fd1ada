import hmac
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.artifacts.documents import Baseline
from holdfast.artifacts.folder import load_any, save
from holdfast.reuse import Cache, CachedStep, code_digest, pinned, step_key
from holdfast.steps import STEPS


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """The user's private state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def symlink(path):
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.fixture
def diary(tmp_path):
    return tmp_path / "diary"


@pytest.fixture
def play(machine, pipeline, diary):
    """Runs the two steps and tells which of them were really run."""

    def run(run_name, one=None, two=None, **settings):
        def says(name, more):
            return json.dumps({"name": name, "diary": str(diary), **(more or {})})

        diary.write_text("")
        here = machine(run_name, **settings)
        seen = []
        here.on_step = seen.append
        here.run(pipeline, {"one": says("a", one), "two": says("b", two)})
        assert [record.reused for record in seen] == [record.folder not in ran(seen, diary) for record in seen]
        return diary.read_text().split(), [record.digest for record in seen]

    return run


def ran(seen, diary):
    names = {"a": "steps/first", "b": "steps/second"}
    return [names[word] for word in diary.read_text().split()]


def test_nothing_changed_so_nothing_runs_and_the_artifacts_are_the_same(play):
    _, digests = play("one")
    assert play("two") == ([], digests)


def test_a_changed_setting_runs_its_step_and_not_the_one_before(play):
    play("one")
    assert play("two", two={"verdict": "inconclusive"})[0] == ["b"]


def test_a_changed_artifact_runs_what_reads_it(play):
    play("one")
    assert play("two", one={"bytes": "other"})[0] == ["a", "b"]


def test_a_rerun_step_with_the_same_bytes_leaves_its_reader_reusable(play):
    play("one")
    assert play("two", one={"note": "other settings, same artifact"})[0] == ["a"]


def test_from_a_step_on_everything_runs_anew(play):
    play("one")
    assert play("two", rerun=frozenset({"second"}))[0] == ["b"]
    assert play("three", rerun=frozenset({"first", "second"}))[0] == ["a", "b"]


def test_other_code_runs_everything(play):
    play("one", code="1" * 64)
    assert play("two", code="2" * 64)[0] == ["a", "b"]


@pytest.mark.parametrize("damage", [b"", b"y" * 9, None])
def test_a_damaged_entry_is_a_miss_and_is_replaced(play, tmp_path, damage):
    play("one")
    for path in (tmp_path / "cache").rglob("x.bin"):
        path.write_bytes(damage) if damage is not None else path.unlink()
    assert play("two")[0] == ["a", "b"]
    assert play("three")[0] == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": 3}', '{"digest": "' + "0" * 64 + '"}'])
def test_an_entry_with_damaged_outputs_is_a_miss(play, tmp_path, text):
    play("one")
    for path in (tmp_path / "cache").rglob("outputs.json"):
        path.write_text(text)
    assert play("two")[0] == ["a", "b"]


def forged(tmp_path, *, seal=None):
    """An entry whose report holds something else, with every digest computed again."""
    place = next((tmp_path / "cache" / "steps").iterdir())
    made = load_any(place / "artifact")
    other = save(tmp_path / "other", made.document.model_copy(update={"files": {}}), {"x.bin": b"forged"})
    shutil.rmtree(place / "artifact")
    shutil.copytree(other.folder, place / "artifact")
    outputs = json.dumps({**json.loads((place / "outputs.json").read_text()), "digest": other.digest}).encode()
    (place / "outputs.json").write_bytes(outputs)
    if seal is not None:
        (place / "seal").write_bytes(hmac.digest(seal, place.name.encode() + b"\n" + outputs, "sha256").hex().encode())


def test_an_entry_that_somebody_else_made_is_a_miss(play, tmp_path, state):
    assert play("one")[0] == ["a", "b"]
    honest = play("two")
    assert honest[0] == []
    forged(tmp_path)
    again = play("three")
    assert len(again[0]) == 1
    assert again[1] == honest[1]
    # Without the secret no seal can be made; with it, whoever has it is the user.
    forged(tmp_path, seal=b"0" * 32)
    assert play("four")[1] == honest[1]


def test_an_entry_moved_to_another_step_s_key_is_a_miss(play, tmp_path):
    play("one")
    first, second = sorted((tmp_path / "cache" / "steps").iterdir())
    shutil.rmtree(second)
    first.rename(second)
    assert play("two")[0] == ["a", "b"]


def test_another_user_s_cache_is_none(play, tmp_path, monkeypatch):
    play("one")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    assert play("two")[0] == ["a", "b"]


@pytest.mark.parametrize("spoil", [lambda p: p.chmod(0o644), lambda p: p.write_bytes(b"short"), symlink])
def test_a_secret_that_is_not_private_is_not_used(play, state, capsys, spoil):
    play("one")
    spoil(state / "holdfast" / "reuse.key")
    assert play("two")[0] == ["a", "b"]
    assert "reuse.key: expected 32 bytes that only this user reads" in capsys.readouterr().err


def test_without_a_place_for_the_secret_every_step_runs(play, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert [play(name)[0] for name in ("one", "two")] == [["a", "b"]] * 2
    assert "every step runs again" in capsys.readouterr().err


def test_two_processes_that_start_at_once_have_one_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        assert len({cache.secret for cache in pool.map(Cache, [tmp_path / "cache"] * 32)}) == 1
    assert [path.name for path in (tmp_path / "holdfast").iterdir()] == ["reuse.key"]


def test_a_stray_file_in_an_entry_is_a_miss(play, tmp_path):
    play("one")
    for path in (tmp_path / "cache").rglob("x.bin"):
        path.with_name("stray").write_text("?")
    assert play("two")[0] == ["a", "b"]


def test_steps_that_look_outside_their_inputs_are_never_reused():
    assert {step.name for step in STEPS if not step.reusable} == {"baseline", "gate", "register", "rollout"}


def test_an_interrupted_copy_is_no_entry(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        cache.keep("k" * 64, CachedStep(tmp_path / "nothing", {"digest": "0" * 64}))
    assert list(cache.folder.iterdir()) == []
    assert cache.find("k" * 64) is None


def test_copies_that_a_killed_run_left_are_swept_and_young_ones_spared(tmp_path):
    artifact = save(tmp_path / "made", Baseline(name="a", present=False))
    cache = Cache(tmp_path / "cache")
    for name in (".old.partial", ".young.partial"):
        (cache.folder / name).mkdir(parents=True)
    os.utime(cache.folder / ".old.partial", (0, 0))
    cache.keep("k" * 64, CachedStep(artifact.folder, {"digest": artifact.digest}))
    assert sorted(path.name for path in cache.folder.iterdir()) == [".young.partial", "k" * 64]


def test_an_entry_gives_back_what_was_kept(tmp_path):
    artifact = save(tmp_path / "made", Baseline(name="a", present=False), {"deep/x": b"1"})
    cache = Cache(tmp_path / "cache")
    cache.keep("k" * 64, CachedStep(artifact.folder, {"digest": artifact.digest, "verdict": "pass"}))
    found = cache.find("k" * 64)
    assert found is not None
    assert found.outputs == {"digest": artifact.digest, "verdict": "pass"}
    assert (found.artifact / "deep" / "x").read_bytes() == b"1"


def test_the_key_tells_apart_what_joins_to_the_same_text():
    parts = {step_key("i", words, code="c", environment="e") for words in (["ab", "c"], ["a", "bc"], ["abc"])}
    assert len(parts) == 3


def test_the_longest_pinned_path_is_replaced_first():
    assert pinned("/d/a.csv /d/a.csv.gz", {"/d/a.csv": "1", "/d/a.csv.gz": "2"}) == "1 2"


def test_the_users_own_code_is_part_of_the_code(tmp_path):
    net = tmp_path / "net.py"
    net.write_text("a = 1\n")
    before = code_digest([net])
    net.write_text("a = 2\n")
    assert before != code_digest([net]) != code_digest()
