"""Ways to change a registered version, or what was signed about it, without the keys; each is to be refused.

A tampering gets a private copy of a version that holds and a generator of random numbers, changes the copy as whoever
can write to the store could (most compute every digest again), and returns what the reader asks of it, where that is
changed. Where it has signed something, it has used a key that the attacker may hold: of no role, or of another one.
"""

import base64
import hashlib
import hmac
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast import registry
from holdfast.artifacts.documents import GateDecision, Verdict
from holdfast.artifacts.folder import DOCUMENT, load_any
from holdfast.attestation import store
from holdfast.attestation.demands import TAG, Demands
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import PrivateKey
from holdfast.attestation.model_files import SIGNATURE, sign_files
from holdfast.attestation.predicates import Occasion, statement_of, verdict_statement
from holdfast.attestation.statement import Statement
from holdfast.attestation.trust import ROLES, Revocation
from holdfast.errors import RefusedError
from holdfast.reuse import Cache, CachedStep
from tests.attestation import people_tamperings
from tests.attestation.chains import NOW, Made, trust_in
from tests.attestation.people_tamperings import PeopleWorld
from tests.attestation.versions import StoredVersion

Tampering = Callable[["World", StoredVersion, random.Random], Demands | None]


@dataclass(frozen=True)
class World:
    """What there is besides the version: its run, another honest run under the same keys, keys of no role."""

    made: Made
    other: Made
    other_version: StoredVersion
    stranger: PrivateKey
    demands: Demands
    people: PeopleWorld


def tamperings() -> dict[str, Tampering]:
    """Every way, by name."""
    return dict(_TAMPERINGS)


_TAMPERINGS: dict[str, Tampering] = {}


def _way(function: Tampering) -> Tampering:
    _TAMPERINGS[function.__name__] = function
    return function


# --- bytes ------------------------------------------------------------------------------------------------------------


@_way
def one_byte_of_a_file(world: World, version: StoredVersion, rng: random.Random) -> None:
    _flip(rng.choice(_files(version)), rng)


@_way
def one_byte_and_every_digest(world: World, version: StoredVersion, rng: random.Random) -> None:
    signed = {registry.MANIFEST, SIGNATURE}
    places = [path for path in _files(version) if path.name not in signed and path.name != DOCUMENT]
    _flip(rng.choice([path for path in places if store.ATTESTATIONS not in path.parts]), rng)
    version.seal_again()


@_way
def a_number_of_a_document(world: World, version: StoredVersion, rng: random.Random) -> None:
    path = rng.choice([path for path in _files(version) if path.name == DOCUMENT])
    value = json.loads(path.read_bytes())
    places = list(_numbers(value))
    holder, key = rng.choice(places) if places else (value, "version")
    holder[key] = holder[key] + rng.choice([1, 2, 5])
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n")
    version.seal_again()


@_way
def a_file_is_gone(world: World, version: StoredVersion, rng: random.Random) -> None:
    rng.choice([path for path in _files(version) if path.name != SIGNATURE]).unlink()
    if rng.random() < 0.5 and all((version.folder / part / DOCUMENT).exists() for part in ("model", "decision")):
        _sealed(version)


@_way
def a_file_is_cut(world: World, version: StoredVersion, rng: random.Random) -> None:
    path = rng.choice(_files(version))
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])
    if rng.random() < 0.5 and path.name != DOCUMENT:
        _sealed(version)


# --- files and folders that are not listed ----------------------------------------------------------------------------


@_way
def a_file_more(world: World, version: StoredVersion, rng: random.Random) -> None:
    folders = [version.folder, *(path for path in version.folder.rglob("*") if path.is_dir())]
    names = (
        ".git/config",
        ".gitignore",
        ".gitattributes",
        ".github/evil.py",
        "evil.py",
        ".hidden",
        "__pycache__/x.pyc",
    )
    path = rng.choice(folders) / rng.choice(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("import os")
    if rng.random() < 0.7:
        version.seal_again()


@_way
def an_empty_folder_more(world: World, version: StoredVersion, rng: random.Random) -> None:
    folders = [version.folder, *(path for path in version.folder.rglob("*") if path.is_dir())]
    (rng.choice(folders) / rng.choice([".git", "x", "empty"])).mkdir()


@_way
def a_link_for_a_file(world: World, version: StoredVersion, rng: random.Random) -> None:
    path = rng.choice(_files(version))
    moved = version.folder.parent / f"{version.folder.name}.moved"
    shutil.move(path, moved)
    path.symlink_to(moved)


@_way
def a_link_more(world: World, version: StoredVersion, rng: random.Random) -> None:
    (version.folder / rng.choice(["model", "decision", "."]) / "link").symlink_to("/etc/passwd")
    if rng.random() < 0.5:
        _sealed(version)


# --- swaps and replays ------------------------------------------------------------------------------------------------


@_way
def another_models_network(world: World, version: StoredVersion, rng: random.Random) -> None:
    _replace(world.other_version.folder / "model", version.folder / "model")
    version.seal_again()


@_way
def another_runs_report(world: World, version: StoredVersion, rng: random.Random) -> None:
    part = rng.choice(["attack", "certify", "backdoor", "schema", "drift", "scan"])
    _replace(world.other_version.folder / registry.EVIDENCE / part, version.folder / registry.EVIDENCE / part)
    if rng.random() < 0.8:
        version.put_bundles({**version.bundles(), **world.other_version.bundles()})
    version.seal_again()


@_way
def another_runs_decision(world: World, version: StoredVersion, rng: random.Random) -> None:
    _replace(world.other_version.folder / "decision", version.folder / "decision")
    version.put_bundles({**version.bundles(), **world.other_version.bundles()})
    if rng.random() < 0.5:
        version.seal_again()
    else:
        _sealed(version)


@_way
def another_versions_signature_of_files(world: World, version: StoredVersion, rng: random.Random) -> None:
    shutil.copyfile(world.other_version.folder / SIGNATURE, version.folder / SIGNATURE)
    version.seal_again()


@_way
def statements_about_something_else(world: World, version: StoredVersion, rng: random.Random) -> None:
    bundles = version.bundles()
    target, source = rng.sample(sorted(bundles), 2)
    pool = {**bundles, **world.other_version.bundles()}
    bundles[target] = pool[rng.choice([source, *world.other_version.bundles()])]
    version.put_bundles(bundles)
    version.seal_again()


@_way
def another_name(world: World, version: StoredVersion, rng: random.Random) -> None:
    version.name = rng.choice(["fraud", "Digits", "digits ", "digits/1", "model"])


@_way
def the_same_under_another_models_name(world: World, version: StoredVersion, rng: random.Random) -> None:
    """A byte-equal copy, renamed inside as well."""
    version.name = "fraud"
    for place in ("model", "decision"):
        path = version.folder / place / DOCUMENT
        value = json.loads(path.read_bytes())
        value["name"] = "fraud"
        path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n")
    version.seal_again()


# --- verdicts ---------------------------------------------------------------------------------------------------------


@_way
def a_verdict_that_was_edited(world: World, version: StoredVersion, rng: random.Random) -> None:
    path = version.folder / "decision" / DOCUMENT
    value = json.loads(path.read_bytes())
    check = rng.choice(value["checks"])
    check["measured"] = 0.999
    check["required"] = ">= 0.99"
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n")
    version.seal_again()


@_way
def fewer_requirements(world: World, version: StoredVersion, rng: random.Random) -> None:
    path = version.folder / "decision" / DOCUMENT
    value = json.loads(path.read_bytes())
    value["require"] = {**value["require"], "attested": True, "waivers_at_most": 99}
    value["policy"] = "0" * 64 if rng.random() < 0.5 else value["policy"]
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n")
    version.seal_again()


@_way
def a_policy_off_the_list(world: World, version: StoredVersion, rng: random.Random) -> Demands:
    return Demands(trust_in(world.made.folder / "keys", policies=(f"{rng.getrandbits(256):064x}",)), NOW)


@_way
def a_failed_decision_with_a_forged_pass(world: World, version: StoredVersion, rng: random.Random) -> None:
    """Failed, signed honestly as failed; the verdict on the model signed by whoever may not."""
    folder = version.folder / "decision"
    document = load_any(folder).document
    assert isinstance(document, GateDecision)
    check = document.checks[0].model_copy(update={"verdict": Verdict.FAIL})
    failed = document.model_copy(update={"checks": (check, *document.checks[1:]), "verdict": Verdict.FAIL})
    value = json.loads(failed.model_dump_json())
    if rng.random() < 0.5:
        value["verdict"] = "pass"
    (folder / DOCUMENT).write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n")
    version.seal_again()
    again = load_any_or_none(folder)
    if again is not None:
        signer = rng.choice([world.stranger, world.made.keys["trainer"], world.made.keys["attacker"]])
        bundles = version.bundles()
        statement = verdict_statement(document, again.digest, Occasion("toy", NOW))
        bundles[version.tags["holdfast.model_digest"]] = [sign_payload(statement.payload(), signer)]
        bundles[again.digest] = [sign_payload(_statement(document, again.digest).payload(), signer)]
        version.put_bundles(bundles)
        version.seal_again()


# --- signatures -------------------------------------------------------------------------------------------------------


@_way
def a_statement_that_is_gone(world: World, version: StoredVersion, rng: random.Random) -> None:
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    bundles[chosen] = [one for one in bundles[chosen] if rng.random() < 0.5][: len(bundles[chosen]) - 1]
    version.put_bundles(bundles)
    version.seal_again()


@_way
def every_statement_is_gone(world: World, version: StoredVersion, rng: random.Random) -> None:
    version.put_bundles({})
    version.seal_again()


@_way
def the_wrong_role_signs(world: World, version: StoredVersion, rng: random.Random) -> None:
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    signed = [_payload(one) for one in bundles[chosen]]
    own = {key.fingerprint: role for role, key in world.made.keys.items()}
    holders = {own[json.loads(one)["verificationMaterial"]["publicKey"]["hint"]] for one in bundles[chosen]}
    role = rng.choice([role for role in ROLES if role not in holders])
    bundles[chosen] = [sign_payload(payload, world.made.keys[role]) for payload in signed]
    version.put_bundles(bundles)
    version.seal_again()


@_way
def a_stranger_signs(world: World, version: StoredVersion, rng: random.Random) -> None:
    """With the hint of the right key, or with its own."""
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    forged = [json.loads(sign_payload(_payload(one), world.stranger)) for one in bundles[chosen]]
    if rng.random() < 0.5:
        hints = [json.loads(one)["verificationMaterial"] for one in bundles[chosen]]
        forged = [one | {"verificationMaterial": hint} for one, hint in zip(forged, hints, strict=True)]
    bundles[chosen] = [json.dumps(one).encode() for one in forged]
    version.put_bundles(bundles)
    version.seal_again()


@_way
def a_stranger_signs_everything(world: World, version: StoredVersion, rng: random.Random) -> None:
    """The network is another one, and the whole chain is made again by one who holds keys of no role."""
    _flip(version.folder / "model" / "made.txt", rng)
    version.seal_again()
    bundles: dict[str, list[bytes]] = {}
    for folder in [version.folder / "model", version.folder / "decision", *(version.folder / "evidence").iterdir()]:
        artifact = load_any(folder)
        signed = [_statement(artifact.document, artifact.digest)]
        if isinstance(artifact.document, GateDecision):
            verdict = verdict_statement(artifact.document, artifact.digest, Occasion("toy", NOW))
            bundles.setdefault(verdict.digest, []).append(sign_payload(verdict.payload(), world.stranger))
        for one in signed:
            bundles.setdefault(artifact.digest, []).append(sign_payload(one.payload(), world.stranger))
    version.put_bundles({**version.bundles(), **bundles})
    _sign_files(version, world.stranger)


@_way
def a_changed_statement(world: World, version: StoredVersion, rng: random.Random) -> None:
    """One byte of what was signed, under the old signature."""
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    changed = []
    for one in bundles[chosen]:
        value = json.loads(one)
        payload = bytearray(_payload(one))
        payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(7)
        value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        changed.append(json.dumps(value).encode())
    bundles[chosen] = changed
    version.put_bundles(bundles)
    version.seal_again()


@_way
def a_changed_signature(world: World, version: StoredVersion, rng: random.Random) -> None:
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    changed = []
    for one in bundles[chosen]:
        value = json.loads(one)
        signature = bytearray(base64.b64decode(value["dsseEnvelope"]["signatures"][0]["sig"]))
        signature[rng.randrange(4, len(signature))] ^= 1 << rng.randrange(8)
        value["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
        changed.append(json.dumps(value).encode())
    bundles[chosen] = changed
    version.put_bundles(bundles)
    version.seal_again()


@_way
def an_older_form_of_bundle(world: World, version: StoredVersion, rng: random.Random) -> None:
    """Downgrades: another media type, payload type, no signature, two of them, an unknown part."""
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    form = rng.randrange(6)
    bundles[chosen] = [_older(json.loads(one), form) for one in bundles[chosen]]
    version.put_bundles(bundles)
    version.seal_again()


@_way
def a_key_given_twice(world: World, version: StoredVersion, rng: random.Random) -> None:
    """The first of two equal keys is what one parser reads, the second what another does."""
    if rng.random() < 0.5:
        path = rng.choice([path for path in _files(version) if path.name == DOCUMENT])
        path.write_bytes(b'{"name":"x",' + path.read_bytes()[1:])
        _sealed(version)
        return
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    bundles[chosen] = [b'{"mediaType":"x",' + one[1:] for one in bundles[chosen]]
    version.put_bundles(bundles)
    version.seal_again()


# --- time -------------------------------------------------------------------------------------------------------------


@_way
def a_verdict_that_is_too_old(world: World, version: StoredVersion, rng: random.Random) -> Demands:
    trust = trust_in(world.made.folder / "keys", max_age_days=7)
    return Demands(trust, NOW + timedelta(days=7, seconds=rng.randrange(1, 10**7)))


@_way
def statements_from_the_future(world: World, version: StoredVersion, rng: random.Random) -> Demands:
    return replace(world.demands, now=NOW - timedelta(seconds=rng.randrange(301, 10**8)))


@_way
def a_key_that_was_revoked(world: World, version: StoredVersion, rng: random.Random) -> Demands:
    role = rng.choice(["gate", "trainer", "attacker", "data-owner"])
    since = rng.choice([None, NOW - timedelta(seconds=rng.randrange(10**6))])
    revoked = Revocation(fingerprint=world.made.keys[role].fingerprint, since=since)  # type: ignore[index]
    return Demands(trust_in(world.made.folder / "keys", revoked=(revoked,)), NOW)


# --- the folder that MLflow loads ----------------------------------------------------------------------------------


@_way
def code_that_mlflow_would_run(world: World, version: StoredVersion, rng: random.Random) -> None:
    name = f"loader{rng.randrange(1000)}"
    flavor = f"python_function: {{loader_module: {name}, code: code}}"
    (version.package / "MLmodel").write_text(f"flavors: {{{flavor}}}\n")
    (version.package / "code").mkdir()
    (version.package / "code" / f"{name}.py").write_text("_load_pyfunc = str\n")


@_way
def one_file_more_less_or_other_of_the_package(world: World, version: StoredVersion, rng: random.Random) -> None:
    described = version.package / "MLmodel"
    change = rng.choice(("more", "less", "other", "link"))
    if change == "more":
        (version.package / rng.choice(("conda.yaml", "data/x.py", ".hidden"))).write_text("x")
    elif change == "link":
        (version.package / "code").symlink_to(world.other_version.package)
    elif change == "less":
        described.unlink()
    else:
        described.write_bytes(described.read_bytes() + b" ")


# --- tags -------------------------------------------------------------------------------------------------------------


@_way
def a_tag_that_is_gone(world: World, version: StoredVersion, rng: random.Random) -> None:
    del version.tags[rng.choice(list(version.tags))]


@_way
def a_tag_of_another_version(world: World, version: StoredVersion, rng: random.Random) -> None:
    for key in rng.sample(sorted(version.tags), rng.randrange(1, len(version.tags) + 1)):
        version.tags[key] = world.other_version.tags[key]


@_way
def a_statement_only_in_a_tag_of_another_subject(world: World, version: StoredVersion, rng: random.Random) -> None:
    bundles = version.bundles()
    chosen = rng.choice(_needed(version))
    taken = bundles.pop(chosen)
    other = rng.choice([key for key in world.other_version.bundles() if key not in version.bundles()])
    version.tags |= {f"{TAG}{n}": one.decode() for n, one in enumerate(world.other_version.bundles()[other])}
    version.tags |= {f"{TAG}x": sign_payload(_payload(taken[0]), world.stranger).decode()}
    version.put_bundles(bundles)
    version.seal_again()


# --- people -----------------------------------------------------------------------------------------------------------


@_way
def an_approval_or_a_waiver_that_does_not_count(world: World, version: StoredVersion, rng: random.Random) -> Demands:
    return people_tamperings.tamper(world.people, version, world.stranger, rng)


# --- aliases ----------------------------------------------------------------------------------------------------------


@_way
def an_alias_back_at_an_older_version(world: World, version: StoredVersion, rng: random.Random) -> None:
    """An honest version that passed and was released, but before this one: every signature of it holds."""
    shutil.rmtree(version.package)
    older = world.other_version.copy(version.package)
    version.tags = older.tags
    first, last = older.released
    changed = _payload(first).replace(b'"sequence":1', b'"sequence":3')
    assert changed != _payload(first)
    envelope = json.loads(first)
    envelope["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    keys = [key for role, key in world.made.keys.items() if role != "release"]
    version.released = rng.choice(
        [
            (first, last),
            (last, first),
            (first, first),
            (first,),
            (last,),
            (first, last, json.dumps(envelope).encode()),
            (first, last, sign_payload(changed, world.stranger)),
            (first, last, sign_payload(changed, rng.choice(keys))),
        ]
    )


# --- the reuse cache --------------------------------------------------------------------------------------------------


@_way
def an_entry_of_the_reuse_cache(world: World, version: StoredVersion, rng: random.Random) -> Demands:
    """A report there is changed with all its digests; the seal is that of before, of another key, or left out."""
    kept = version.folder / registry.EVIDENCE / rng.choice(["attack", "backdoor", "scan", "drift"])
    other = world.other_version.folder / registry.EVIDENCE / kept.name
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        cache.secret = b"s" * 32
        for key, place in (("0" * 64, kept), ("1" * 64, other)):
            cache.keep(key, CachedStep(place, {"digest": load_any(place).digest}))
        assert cache.find("0" * 64) is not None
        _change_entry(cache.folder / ("0" * 64), cache.folder / ("1" * 64), rng)
        if cache.find("0" * 64) is None:
            raise RefusedError("the entry was not used")
    return world.demands


def _change_entry(entry: Path, other: Path, rng: random.Random) -> None:
    if rng.random() < 0.3:
        shutil.rmtree(entry)
        shutil.copytree(other, entry)
        return
    document = entry / "artifact" / DOCUMENT
    value = json.loads(document.read_bytes())
    holder, key = rng.choice(list(_numbers(value)))
    holder[key] = holder[key] + rng.choice([1, 2, 5])
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    document.write_bytes(data)
    outputs = json.dumps({"digest": hashlib.sha256(data).hexdigest()}).encode()
    seal = hmac.digest(rng.randbytes(32), entry.name.encode() + b"\n" + outputs, "sha256").hex().encode()
    written = rng.choice([(outputs, None), (None, None), (outputs, seal), (outputs, b""), (outputs, rng.randbytes(64))])
    for name, bytes_ in zip(("outputs.json", "seal"), written, strict=True):
        if bytes_ is not None:
            (entry / name).write_bytes(bytes_)


_ADDED = (".git/config", ".gitignore", ".gitattributes", ".github/evil.py", "evil.py", ".hidden", "__pycache__/x.pyc")


# --- parts ------------------------------------------------------------------------------------------------------------


def load_any_or_none(folder: Path) -> Any:
    from holdfast.errors import ArtifactError

    try:
        return load_any(folder)
    except ArtifactError:
        return None


def _files(version: StoredVersion) -> list[Path]:
    return [path for path in sorted(version.folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _numbers(value: Any) -> Any:
    """(holder, key) of every number that is no version, below `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        if isinstance(one, int | float) and not isinstance(one, bool) and key not in ("version", "bytes"):
            yield value, key
        yield from _numbers(one)


def _sealed(version: StoredVersion) -> None:
    """Only the list of files and its tag."""
    (version.folder / registry.MANIFEST).unlink(missing_ok=True)
    version.tags["holdfast.bundle_digest"] = registry.seal_bundle(version.folder)


def _replace(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def _needed(version: StoredVersion) -> list[str]:
    """Digests of subjects about which the chain asks for a statement."""
    return sorted(version.bundles())


def _payload(bundle: bytes) -> bytes:
    return base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])


def _statement(document: Any, digest: str) -> Statement:
    return statement_of(document, digest, Occasion("toy", NOW))


def _sign_files(version: StoredVersion, signer: PrivateKey) -> None:
    (version.folder / SIGNATURE).unlink()
    (version.folder / registry.MANIFEST).unlink()
    files = {path.relative_to(version.folder).as_posix(): path for path in _files(version)}
    from holdfast.artifacts.folder import sha256_of

    pins = {name: sha256_of(path).sha256 for name, path in files.items()}
    (version.folder / SIGNATURE).write_bytes(sign_files(version.name, pins, signer, NOW, (registry.MANIFEST,)))
    _sealed(version)


def _older(bundle: dict[str, Any], form: int) -> bytes:
    envelope = bundle["dsseEnvelope"]
    if form == 0:
        bundle["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1"
    elif form == 1:
        envelope["payloadType"] = "application/json"
    elif form == 2:
        envelope["signatures"] = []
    elif form == 3:
        envelope["signatures"] = envelope["signatures"] * 2
    elif form == 4:
        bundle["unknown"] = True
    else:
        return json.dumps(envelope).encode()
    return json.dumps(bundle).encode()
