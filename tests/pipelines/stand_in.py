"""Stands in for every environment's interpreter: `python -m holdfast STEP ...` writes the smallest valid artifact.

What a step says can be set with STAND_IN, for example {"schema": {"verdict": "fail"}, "train": {"exit": 5}}; what only
its first call says stands in "first".
"""

import json
import os
import sys
from pathlib import Path

from holdfast.artifacts import documents as d
from holdfast.artifacts.folder import Ref, load_any, save
from holdfast.executor import read_executor_input, write_executor_output

if sys.argv[1] == "-c":  # the task that only fails with a reason
    sys.exit(sys.argv[-1])
step = sys.argv[3]
if step == "check-network":
    sys.exit(os.environ.get("STAND_IN_NETWORK"))
given = dict(word[2:].split("=", 1) for word in sys.argv[4:] if word.startswith("--"))
given["artifacts"] = [word for word in sys.argv[4:] if word.startswith("--artifact=")]
says = json.loads(os.environ.get("STAND_IN", "{}")).get(step, {})
with Path(os.environ["STAND_IN_DIARY"]).open("a+") as diary:
    diary.seek(0)
    if not any(json.loads(line)["step"] == step for line in diary):
        says = says.get("first", says)
    diary.write(json.dumps({"step": step, **given}) + "\n")
if "exit" in says:
    sys.stdout.write(f"no luck in {step}\n")
    sys.exit(says["exit"])
if step == "report":
    Path(given["out"]).parent.mkdir(parents=True, exist_ok=True)
    Path(given["out"]).write_text("<p>report</p>")
    sys.exit()
roles = (
    "snapshot", "baseline", "schema", "drift", "scan", "model", "backdoor", "attack", "certify", "guard", "extract",
    "decision",
)  # fmt: skip
inputs = {role: load_any(Ref.parse(given[role])).digest for role in roles if role in given}
verdict = d.Verdict(says.get("verdict", "pass"))
shard = given.get("shard", "1/1").split("/")
part = {
    "shard": int(shard[0]), "shards": int(shard[1]), "seed": 0, "device": "cpu", "threads": 1, "library": "toy",
}  # fmt: skip
parts = [load_any(Ref.parse(word.partition("=")[2])).document.shard for word in sys.argv if word.startswith("--part=")]
zeros, some = "0" * 64, d.Count(k=9, n=10)
threat = d.ThreatModel(norm="linf", epsilon="8/255", unit="input units [0, 1]")
made = {
    "snapshot": lambda: d.Snapshot(
        name="toy", modality="image", root=zeros, sources=(), label="y", classes=("a", "b"), train_rows=8, test_rows=2,
        train_per_class=(4, 4), test_per_class=(1, 1), shape=(1, 8, 8),
    ),
    "baseline": lambda: d.Baseline(name="toy", present=False),
    "schema": lambda: d.SchemaReport(source="inferred", columns=1, rows=8, verdict=verdict),
    "drift": lambda: d.DriftReport(reference="held-out", stage_one=(), drifted=some, reason="", verdict=verdict),
    "scan": lambda: d.ScanReport(
        detectors=(), suspects=some, budget=1, per_class=(0, 0), clean_rows=zeros, verdict=verdict
    ),
    "train": lambda: d.Model(
        name="toy", architecture=d.Architecture(name="cnn", parameters=1),
        input=d.InputSpec(modality="image", shape=(1, 8, 8), dtype="float32"), classes=("a", "b"), threat=threat,
        recipe={}, seed=int(given["seed"]), threads=int(given["threads"]), device="cpu", best_epoch=0, clean=some,
        robust=some,
    ),
    "backdoor": lambda: d.BackdoorReport(method="toy", triggers=(), flagged=(), verdict=verdict),
    "attack": lambda: d.RobustnessReport(
        tier="pr", seed=0, clean=some, attacks=(), worst_case=some, masking=(), **says.get("with", {})
    ),
    "certify": lambda: d.Certificate(
        method="randomized-smoothing", norm="l2", unit="", noise=0.25, alpha=0.001, samples=1, selection_samples=1,
        seed=0, certified=(), abstained=some,
    ),
    "calibrate": lambda: d.GuardCalibration(
        name="toy", features="logits", reference_rows=1, held_out_rows=1, near_rows=1, alpha=1e-4, confidence=0.99,
        least_p=0.5, seed=0, benign=some, streams=(),
    ),
    "extract": lambda: d.ExtractionReport(
        name="toy", agreement_at_most=0.8, alpha=0.05, budget_reason="", seed=0, curves=(d.ExtractionCurve(
            strategy="random", outputs="full", points=(d.ExtractionPoint(queries=1, agreed=some),)),),
    ),
    "gate": lambda: d.GateDecision(
        name="toy", policy=zeros, policy_name=json.loads(given["policy"])["name"], alpha=0.05,
        checks=(d.Check(name="x", required="", verdict=verdict),), verdict=verdict,
    ),
    "register": lambda: d.Registration(name="toy", model_version=3, model=zeros, run_id="r"),
    "rollout": lambda: d.RolloutRecord(
        name="toy", candidate_version=int(given["version"]), champion_version=None, transitions=(), requests_sent=0,
        requests_failed=0, outcome=says.get("outcome", "promoted"), reason=says.get("reason", "r"),
        cause=says.get("cause", "none"), verdict=verdict,
    ),
    "attack-part": lambda: d.AttackPart(**part, gradients=True),
    "certify-part": lambda: d.CertifyPart(**part),
}[f"{step}-part" if "shard" in given else step]().model_copy(update={"inputs": inputs})  # fmt: skip
done = save(Path(given["out"]), made)
Path(given["digest-file"]).write_text(done.digest)
Path(given["verdict-file"]).write_text(str(verdict))
if "executor-input" in given:
    write_executor_output(read_executor_input(given["executor-input"]), {})
if "version-file" in given:
    Path(given["version-file"]).write_text("3")
