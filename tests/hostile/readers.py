"""Every reader that a stranger's file reaches: the command that a user would give, and the honest things around it."""

import gzip
import hashlib
import json
import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from holdfast.artifacts.folder import DOCUMENT
from tests.attestation.chains import Made, signed_run
from tests.attestation.versions import StoredVersion, store_version
from tests.hostile import deliveries, models, payloads, texts
from tests.hostile.kinds import Kind, kinds, special
from tests.hostile.trial import command, function

WORKLOAD = """name: work
modality: tabular
data: {source: d.csv, label: y, max_bytes: %s}
network: {architecture: mlp}
threat: {norm: linf, epsilon: 1/10}
"""
OWN_CODE = WORKLOAD.replace("mlp", '"payload:build"') % 1_000_000
TRUST = "version: 1\nroles: {gate: {keys: [gate.pub], threshold: %s}}\n"
POLICY = "name: p\nalpha: 0.05\nchecks: {clean_accuracy: {at_least: %s}}\n"
TARGET = """namespace: models
kubeconfig: kubeconfig
seldon-v1:
  deployment: fraud
  stable: main
  candidate: {name: candidate, replicas: %s, graph: {}}
metrics:
  prometheus: http://127.0.0.1:1
  champion: {a: b}
  candidate: {a: c}
"""
PLAN = "steps: [10, 100]\nstep_requests: %s\n"
KUBECONFIG = (
    "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: %s}]\n"
)


@dataclass(frozen=True)
class Surroundings:
    """What is honest, made once; a trial gets a copy of what it needs."""

    made: Made
    version: StoredVersion

    @classmethod
    def make(cls, folder: Path) -> "Surroundings":
        made = signed_run(folder / "run")
        return cls(made, store_version(made, folder / "version", made.keys["gate"]))


Prepare = Callable[[Surroundings, Path], Path]
"""Copies honest things into a trial's folder; returns where the hostile file goes, by its name."""
Work = Callable[[Path, Path], Callable[[], int]]
"""What is done, of the trial's folder and the file."""


@dataclass(frozen=True)
class Reader:
    """How a file is given to one command."""

    work: Work
    prepare: Callable[[Surroundings, Path, str], Path] = lambda around, folder, name: folder / name


@dataclass(frozen=True)
class Case:
    """A kind whose file is written, with what belongs around it."""

    name: str
    reader: str
    expected: Literal["refused", "accepted"]
    folder: Path
    file: Path

    @property
    def work(self) -> Callable[[], int]:
        """What reads the file."""
        return READERS[self.reader].work(self.folder, self.file)


def write(kind: Kind, around: Surroundings, folder: Path) -> Case:
    """Makes the file of a kind with what belongs around it, below `folder`."""
    folder.mkdir(parents=True)
    file = READERS[kind.reader].prepare(around, folder, kind.file)
    if file.exists() and not file.is_dir():
        file.unlink()
    kind.make(file)
    return Case(kind.name, kind.reader, kind.expected, folder, file)


def write_all(chosen: Callable[[Kind], bool], folder: Path) -> list[Case]:
    """Writes the corpus in a process that ends, so that its bytes are in the memory of no trial."""
    listed = folder / "cases.json"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            around = Surroundings.make(folder / "around")
            kinds_ = filter(chosen, corpus())
            cases = [asdict(write(kind, around, folder / f"{number}")) for number, kind in enumerate(kinds_)]
            listed.write_text(json.dumps(cases, default=str))
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the corpus could not be written")
    return [
        Case(**{**one, "folder": Path(one["folder"]), "file": Path(one["file"])})
        for one in json.loads(listed.read_text())
    ]


def _words(*words: str) -> Work:
    return lambda folder, file: command(*(word.format(file=file, folder=folder) for word in words))


def _table_there(around: Surroundings, folder: Path, name: str) -> Path:
    (folder / "d.csv").write_text(deliveries.GOOD)
    (folder / "round.csv").symlink_to("round.csv")
    (folder / "payload.py").write_text(payloads.MODULE)
    return folder / name


def _keys_there(around: Surroundings, folder: Path, name: str) -> Path:
    for key in (around.made.folder / "keys").glob("*"):
        shutil.copy(key, folder / key.name)
    return folder / name


def _artifact_there(step: str, inside: str = DOCUMENT) -> Callable[[Surroundings, Path, str], Path]:
    def prepare(around: Surroundings, folder: Path, name: str) -> Path:
        shutil.copytree(around.made.artifacts[step].folder, folder / step)
        return folder / step / (inside or name)

    return prepare


def _run_there(around: Surroundings, folder: Path, name: str) -> Path:
    shutil.copytree(around.made.folder, folder / "run")
    return folder / "run" / name


def _bundle_there(around: Surroundings, folder: Path, name: str) -> Path:
    digest = around.made.artifacts["train"].digest
    return _run_there(around, folder, "attestations") / f"{digest}.jsonl"


def _version_there(around: Surroundings, folder: Path, name: str) -> Path:
    around.version.copy(folder / "version")
    (folder / "tags.json").write_text(json.dumps(around.version.tags))
    return folder / "version" / name


def _taken_in(folder: Path, file: Path) -> Callable[[], int]:
    def read() -> None:
        from holdfast import registry

        tags = json.loads((folder / "tags.json").read_text())
        if file.name == registry.MANIFEST and file.is_file() and file.stat().st_size < 2**30:
            tags[registry.PINS[0]] = hashlib.sha256(file.read_bytes()).hexdigest()
        registry.read_bundle(folder / "version", "digits", 1, tags=tags, demands=None)

    return function(read)


def _network(folder: Path, file: Path) -> Callable[[], int]:
    """A model's artifact whose weights, or program, are the file: pinned, as whoever writes the artifact can."""

    def read() -> None:
        from holdfast.artifacts.documents import Architecture, Model
        from holdfast.artifacts.folder import load, seal
        from holdfast.model.networks import load_network
        from tests.gates.conftest import model

        name = "cnn" if file.suffix == ".safetensors" else "own:build"
        work = folder / "model"
        seal(work, model(architecture=Architecture(name=name, parameters=1)))
        load_network(load(work, Model), "cpu")

    return function(read)


def _in_model(around: Surroundings, folder: Path, name: str) -> Path:
    (folder / "model").mkdir()
    return folder / "model" / name


def _served(folder: Path, file: Path) -> Callable[[], int]:
    def serve() -> int:
        from holdfast.serving.predictor.__main__ import main

        return main(folder)

    return serve


def _in_folder(name: str) -> Callable[[Surroundings, Path, str], Path]:
    def prepare(around: Surroundings, folder: Path, given: str) -> Path:
        (folder / name).mkdir()
        return folder / name / given

    return prepare


def _target_there(around: Surroundings, folder: Path, name: str) -> Path:
    (folder / "target.yaml").write_text(TARGET % 1)
    return folder / name


CHECK_DATA = _words("check-data", "{file}", "--label=y")
READERS: dict[str, Reader] = {
    "workload": Reader(_words("check-data", "{file}"), _table_there),
    "trust policy": Reader(_words("verify", "{folder}/train", "--allow-missing", "--trust={file}"), _keys_there),
    "policy": Reader(_words("gate", "--model=m", "--snapshot=s", "--out={folder}/o", "--policy={file}")),
    "rollout target": Reader(_words("rollout", "status", "--target={file}")),
    "kubeconfig": Reader(_words("rollout", "status", "--target={folder}/target.yaml"), _target_there),
    "document": Reader(_words("show", "{folder}/train"), _artifact_there("train")),
    "document, verified": Reader(_words("verify", "{folder}/train", "--allow-missing"), _artifact_there("train")),
    "pinned file": Reader(_words("verify", "{folder}/train", "--allow-missing"), _artifact_there("train", "made.txt")),
    "bundle": Reader(_words("verify", "{folder}/run", "--trust={folder}/run/keys/trust.yaml"), _bundle_there),
    "record of a run": Reader(_words("report", "{folder}/run", "--out={folder}/r.html"), _run_there),
    "key": Reader(_words("attest", "{folder}/train", "--key={file}"), _artifact_there("train", "")),
    "report of a pull request": Reader(
        _words("pr-comment", "--artifact={folder}/got", "--sha=" + "a" * 40), _in_folder("got")
    ),
    "CSV": Reader(CHECK_DATA),
    "archive": Reader(CHECK_DATA),
    "NPZ": Reader(CHECK_DATA),
    "Parquet": Reader(CHECK_DATA),
    "a table for init": Reader(_words("init", "--data={file}", "--label=y", "--out={folder}/new.yaml")),
    "model": Reader(_words("check-model", "{file}")),
    "weights": Reader(_network, _in_model),
    "version": Reader(_taken_in, _version_there),
    "server's settings": Reader(_served),
    "status of a rollout": Reader(_words("rollout", "status", "--out={folder}/out"), _in_folder(".out.rollout")),
}
"""By the name that kinds give."""


def corpus() -> list[Kind]:
    """All kinds, harmless ones included."""
    hostile = [*_yaml(), *_documents(), *_data(), *_models(), *_others()]
    odd = [replace(kind, expected="accepted") if kind.name in ODD else kind for kind in hostile]
    return [*odd, *harmless()]


def _yaml() -> list[Kind]:
    slots = {"workload": (WORKLOAD, "work.yaml"), "trust policy": (TRUST, "t.yaml"), "policy": (POLICY, "p.yaml")}
    slots |= {"rollout target": (TARGET, "target.yaml"), "kubeconfig": (KUBECONFIG, "kubeconfig")}
    found: list[Kind] = []
    for reader, (template, file) in slots.items():
        found += kinds(reader, texts.yaml_values(template), file)
        found += kinds(reader, texts.yaml_texts(), file)
        found += special(reader, file)
    sources = {
        "data at a path with NUL": WORKLOAD.replace("d.csv", '"d\\0.csv"'),
        "data at a path of 5,000 characters": WORKLOAD.replace("d.csv", "d" * 5_000),
        "data in the home of no one": WORKLOAD.replace("d.csv", '"~no-one-of-that-name/d.csv"'),
        "data at a link to itself": WORKLOAD.replace("d.csv", "round.csv"),
        "data at a device": WORKLOAD.replace("d.csv", "/dev/zero"),
        "data in the kernel's files": WORKLOAD.replace("d.csv", "/proc/self/mem"),
        "data at an address that is none": WORKLOAD.replace("d.csv", '"https://[::1/x"'),
        "data at an address of another scheme": WORKLOAD.replace("d.csv", '"gopher://127.0.0.1/x"'),
        "data with an unknown encoding": WORKLOAD.replace("label: y", "label: y, encoding: rot13"),
        "data with an encoding that is code": WORKLOAD.replace("label: y", "label: y, encoding: ../payload"),
        "data with a delimiter of two": WORKLOAD.replace("label: y", 'label: y, delimiter: "ab"'),
        "a network by a path": WORKLOAD.replace("mlp", '"../payload:build"'),
        "a network of another module": WORKLOAD.replace("mlp", '"os:system"'),
    }
    return found + kinds("workload", {name: (text % 1_000_000).encode() for name, text in sources.items()}, "work.yaml")


def _documents() -> list[Kind]:
    found = []
    for reader in ("document", "document, verified"):
        for field in ("seed", "name", "recipe", "files", "classes"):
            made = texts.json_values(_model(), partial(_put, field))
            found += kinds(reader, {f"{name}, as its {field}": data for name, data in made.items()}, DOCUMENT)
        found += kinds(reader, {**texts.JSON_WHOLE, **texts.BYTES, **_pins()}, DOCUMENT)
        found += special(reader, DOCUMENT)
    found += special("pinned file", "made.txt")
    bundles = texts.json_values({"mediaType": "x"}, lambda value, slot: value.update({"dsseEnvelope": slot}))
    found += kinds("bundle", {**bundles, **texts.JSON_WHOLE, **texts.BYTES, **_bundles()}, "b")
    return found + list(special("bundle", "b"))


def _put(field: str, value: dict[str, Any], slot: str) -> None:
    value[field] = slot


def _model() -> dict[str, Any]:
    from tests.gates.conftest import model

    value: dict[str, Any] = model().model_dump(mode="json")
    return value


def _pins() -> dict[str, bytes]:
    names = ["../../etc/passwd", "/etc/passwd", "a\0b", "a\\b", "a/./b", "", ".", "n" * 5_000, "\x1b[2J", "\ud800"]
    found = {f"a pin of {name[:20]!a}": _pinned({name: {"sha256": "0" * 64, "bytes": 1}}) for name in names}
    many = {f"f{n}": {"sha256": "0" * 64, "bytes": 0} for n in range(100_000)}
    huge = {"made.txt": {"sha256": "0" * 64, "bytes": 2**70}}
    return found | {"100,000 pins": _pinned(many), "a pin of 2^70 bytes": _pinned(huge)}


def _pinned(files: dict[str, Any]) -> bytes:
    return json.dumps({**_model(), "files": files}).encode("utf-8", "surrogatepass")


def _bundles() -> dict[str, bytes]:
    def bundle(payload: str, sig: str = "AAAA") -> bytes:
        envelope = {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": sig}]}
        media = "application/vnd.dev.sigstore.bundle.v0.3+json"
        material = {"publicKey": {"hint": ""}, "tlogEntries": []}
        return json.dumps({"mediaType": media, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()

    return {
        "a payload that is no base64": bundle("!!!"),
        "a payload of half a megabyte": bundle("QUFB" * 150_000),
        "a payload of brackets": bundle("W1tb" * 100_000),
        "a payload that is no text": bundle("ÿ"),
        "a signature that is no base64": bundle("e30=", "\ud800"),
        "a signature of zeros": bundle("e30=", "AAAA" * 20_000),
        "2,000 lines": (bundle("e30=") + b"\n") * 2_000,
        "4 MB of lines": b"{}\n" * 1_500_000,
        "4 MB without a line": b"[" * 4_000_000,
        "a certificate": json.dumps({"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}}).encode(),
    }


ODD = {
    "CSV: quotes inside cells", "CSV: hexadecimal and underscores", "CSV: formulas", "CSV: dates of the year 99999",
    "workload: a network by a path", "workload: a network of another module",
    "archive: a gzip with a name of 10 MB", "Parquet: dates of the year 292,000", "Parquet: a bit of byte 30 flipped",
    "a table for init: lone carriage returns", "a table for init: every delimiter at once",
    "model: torch, a memo of 2^31", "model: torch, 200,000 nested lists", "model: torch, 200,000 nested tuples",
    "model: torch, a list that holds itself", "model: torch, protocol 200",
    "model: zip, an end that promises 2^32 members", "weights: program.pt2, a program",
    *(f"document: {value}, as its seed" for value in ("a negative number", "2^63", "true")),
    *(f"document: {value}, as its name" for value in ("a text of 15 MB", "half a character", "NUL", "an empty text")),
    "document: a text that clears the terminal, as its name", "document: 500,000 keys, as its recipe",
    *(f"document: a pin of {name!a}" for name in ("n" * 20, "\x1b[2J", "\ud800")),
}  # fmt: skip
"""What is unusual and harmless: another text or number, plain values in odd pickles, what `init` leaves to a person."""


def _data() -> list[Kind]:
    found = kinds("CSV", deliveries.delimited(), "d.csv") + kinds("archive", deliveries.packed(), "d.csv.gz")
    found += kinds("NPZ", deliveries.arrays(), "d.npz") + kinds("Parquet", deliveries.parquet(), "d.parquet")
    for reader, file in (("CSV", "d.csv"), ("NPZ", "d.npz"), ("Parquet", "d.parquet"), ("archive", "d.csv.gz")):
        found += special(reader, file)
    some = ("lone carriage returns", "a header of 20 MB", "every delimiter at once", "random bytes", "100,000 columns")
    given = deliveries.delimited()
    return found + kinds("a table for init", {name: given[name] for name in some}, "d.csv")


def _models() -> list[Kind]:
    found = kinds("model", models.files(), "m.pt") + list(special("model", "m.pt"))
    for file, begins in (("weights.safetensors", "safetensors"), ("program.pt2", ("a program", "zip", "torch"))):
        some = {f"{file}, {name}": data for name, data in models.files().items() if name.startswith(begins)}
        found += kinds("weights", some, file)
    return found


def _others() -> list[Kind]:
    record: dict[str, object] = {"workload": "digits", "outcome": "passed", "steps": []}
    records = texts.json_values(record, lambda value, slot: value.update({"steps": slot}))
    found = kinds("record of a run", {**records, **texts.JSON_WHOLE, **texts.BYTES}, "run.json")
    found += special("record of a run", "run.json")
    reports = texts.json_values({"workload": "x"}, lambda value, slot: value.update({"checks": slot}))
    found += kinds("report of a pull request", {**reports, **texts.JSON_WHOLE, **texts.BYTES}, "pr-gate.json")
    found += special("report of a pull request", "pr-gate.json")
    found += kinds("key", {**_keys(), **texts.BYTES}, "k.pem") + list(special("key", "k.pem"))
    found += kinds("version", {**texts.JSON_WHOLE, **texts.BYTES}, "bundle.json") + list(
        special("version", "bundle.json")
    )
    found += [kind for name in ("MLmodel", "model.sig", "replay.npz") for kind in _in_version(name)]
    states = texts.json_values({"state": "canary"}, lambda value, slot: value.update({"name": slot}))
    found += kinds("status of a rollout", {**states, **texts.JSON_WHOLE, **texts.BYTES}, "status.json")
    found += special("status of a rollout", "status.json")
    settings = texts.json_values({"parameters": {}}, lambda value, slot: value.update({"parameters": {"extra": slot}}))
    found += kinds("server's settings", {**settings, **texts.JSON_WHOLE, **texts.BYTES}, "model-settings.json")
    return found + list(special("server's settings", "model-settings.json"))


def _in_version(name: str) -> list[Kind]:
    made = {
        f"{name}, {what}": data for what, data in {**texts.BYTES, "YAML of Python": b"!!python/name:os.system"}.items()
    }
    return kinds("version", made, name)


def _keys() -> dict[str, bytes]:
    def pem(label: str, body: str) -> bytes:
        return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()

    return {
        "a PEM of nothing": pem("PRIVATE KEY", ""),
        "a PEM of zeros": pem("PRIVATE KEY", "A" * 8_000),
        "a PEM of random letters": pem("PRIVATE KEY", "".join("ABCD"[n * 7 % 4] for n in range(4_000))),
        "an encrypted key": pem("ENCRYPTED PRIVATE KEY", "MIGb"),
        "a certificate": pem("CERTIFICATE", "MIIB"),
        "a PEM without an end": b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 8_000,
        "a thousand PEMs": pem("PRIVATE KEY", "") * 200,
        "a key of OpenSSH": pem("OPENSSH PRIVATE KEY", "b3BlbnNzaC1rZXktdjEAAAAA"),
        "20 kB": b"A" * 20_000,
    }


def harmless() -> list[Kind]:
    """A clean file of each reader that takes one alone; all must be accepted."""
    table = {"a table": deliveries.GOOD.encode(), "a table in UTF-16": deliveries.GOOD.encode("utf-16")}
    x = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8)
    made: list[Kind] = [
        *kinds("workload", {"a workload": (WORKLOAD % 1_000_000).encode()}, "work.yaml", "accepted"),
        *kinds("workload", {"own code, which is not run here": OWN_CODE.encode()}, "work.yaml", "accepted"),
        *kinds("CSV", table, "d.csv", "accepted"),
        *kinds("a table for init", table, "d.csv", "accepted"),
        *kinds("model", models.harmless(), "m.bin", "accepted"),
        *kinds("archive", {"a gzip (d.csv.gz)": gzip.compress(deliveries.GOOD.encode())}, "d", "accepted"),
        *kinds(
            "archive", {"a zip (d.csv.zip)": deliveries.zipped({"d.csv": deliveries.GOOD.encode()})}, "d", "accepted"
        ),
        *kinds("NPZ", {"images": deliveries.npz({"x": x, "y": np.arange(20) % 2})}, "d.npz", "accepted"),
        *kinds("Parquet", {"a table": deliveries.written(_columns())}, "d.parquet", "accepted"),
        *kinds("document", {"a model": json.dumps({**_model(), "files": {}}).encode()}, DOCUMENT, "accepted"),
    ]
    return made


def _columns() -> dict[str, Any]:
    return {"a": np.arange(300.0) % 97 / 7, "b": np.arange(300) % 5, "y": ["no", "yes"] * 150}
