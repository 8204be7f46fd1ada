"""What is generated is committed and compared: `holdfast compile` and `holdfast schemas` write it again."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from kfp.components import load_component_from_file
from typer.testing import CliRunner

from holdfast import __version__
from holdfast.artifacts.documents import Baseline
from holdfast.artifacts.folder import canonical_json
from holdfast.cli import app
from holdfast.errors import WorkloadError
from holdfast.steps import STEPS
from holdfast_pipelines.cluster import ClusterSettings, PodSize
from holdfast_pipelines.compiled import compile_pipelines, documents, write_schemas
from holdfast_pipelines.retrain import CHECKPOINTS
from holdfast_pipelines.wiring import CACHE

MANIFESTS = Path(__file__).parents[2] / "manifests"
PIPELINES = MANIFESTS / "pipelines"


def spec(name, folder=PIPELINES):
    return next(yaml.safe_load_all((folder / f"{name}.yaml").read_text()))


def containers(name, folder=PIPELINES):
    return {key: value["container"] for key, value in spec(name, folder)["deploymentSpec"]["executors"].items()}


def executors(name, folder=PIPELINES):
    """Those of steps, without the tasks that only write the report or fail with a reason."""
    others = ("exec-refused", "exec-report")
    return {key: box for key, box in containers(name, folder).items() if not key.startswith(others)}


def tasks(name):
    found = {}
    for dag in (spec(name)["root"], *spec(name)["components"].values()):
        found |= dag.get("dag", {}).get("tasks", {})
    return found


def test_the_committed_pipelines_are_what_compiling_gives(tmp_path):
    for path in compile_pipelines(tmp_path):
        assert path.read_text() == (PIPELINES / path.name).read_text(), "run: holdfast compile"


def test_the_committed_schemas_are_what_the_documents_say(tmp_path):
    written = write_schemas(tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in (MANIFESTS / "schemas").iterdir())
    for path in written:
        assert path.read_text() == (MANIFESTS / "schemas" / path.name).read_text(), "run: holdfast schemas"


def test_every_document_has_a_schema_that_knows_its_kind():
    for kind in documents():
        name = kind.model_fields["kind"].default
        schema = json.loads((MANIFESTS / "schemas" / f"{name}.json").read_text())
        assert schema["properties"]["kind"]["const"] == name
        assert schema["additionalProperties"] is False
        document_keys = json.loads(canonical_json(Baseline(name="a", present=False))) if kind is Baseline else None
        assert document_keys is None or set(schema["required"]) <= set(document_keys)


def undescribed(schema: object, place: str = "") -> list[str]:
    """The properties, at any depth, that have no description."""
    if isinstance(schema, list):
        return [found for item in schema for found in undescribed(item, place)]
    if not isinstance(schema, dict):
        return []
    properties = schema.get("properties", {})
    own = [f"{place}.{name}" for name, value in properties.items() if not str(value.get("description", "")).strip()]
    return own + [found for name, value in schema.items() for found in undescribed(value, f"{place}/{name}")]


@pytest.mark.parametrize("path", sorted((MANIFESTS / "schemas").glob("*.json")), ids=lambda path: path.stem)
def test_every_property_of_every_schema_has_a_description(path):
    assert undescribed(json.loads(path.read_text())) == []


def test_a_property_without_a_description_is_found():
    inner = {"properties": {"a": {"type": "string"}, "b": {"description": " "}, "c": {"description": "Of it."}}}
    assert undescribed({"$defs": {"Inner": inner}, "properties": {"d": {}}}) == [
        ".d", "/$defs/Inner.a", "/$defs/Inner.b",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["retrain", "rollout"])
def test_kfp_loads_the_committed_pipelines(name):
    assert load_component_from_file(str(PIPELINES / f"{name}.yaml")).name == f"holdfast-{name}"


def test_a_rollout_is_told_where_the_traffic_is_and_by_default_serves_in_its_own_pod():
    parameters = spec("rollout")["root"]["inputDefinitions"]["parameters"]
    assert [parameters[name]["defaultValue"] for name in ("driver", "target")] == ["envoy", ""]
    words = executors("rollout")["exec-rollout"]["args"]
    assert {"--driver={{$.inputs.parameters['driver']}}", "--target={{$.inputs.parameters['target']}}"} <= set(words)


@pytest.mark.parametrize("name", ["retrain", "rollout"])
def test_every_step_names_an_image_with_an_immutable_tag(name):
    for container in containers(name).values():
        assert re.fullmatch(
            rf"registry\.invalid/holdfast/(data|model|serving):{re.escape(__version__)}", container["image"]
        )


def words_of(executor):
    """The step's subcommand; that of a rollout has its own, since people ask of one that runs."""
    step = executor.removeprefix("exec-")
    return [step, "start"] if step == "rollout" else [step]


@pytest.mark.parametrize("name", ["retrain", "rollout"])
def test_every_step_runs_the_command_of_its_name_and_installs_nothing(name):
    for executor, container in executors(name).items():
        assert container["command"] == ["python", "-m", "holdfast", *words_of(executor)]
        assert not any("pip" in word for word in container["args"])


def test_every_option_of_every_step_is_known_to_the_command_line():
    command = typer.main.get_command(app)
    for name in ("retrain", "rollout"):
        for executor, container in executors(name).items():
            found = command
            for word in words_of(executor):
                found = found.commands[word]
            known = {flag for option in found.params for flag in option.opts}
            assert {word.partition("=")[0] for word in container["args"]} <= known


def test_every_input_is_read_under_the_digest_that_its_writer_reported():
    for container in executors("retrain").values():
        for word in container["args"]:
            role = re.search(r"inputs\.artifacts\['(\w+)'\]", word)
            assert role is None or word.endswith(f"}}}}@{{{{$.inputs.parameters['{role[1]}_digest']}}}}")
    for task in tasks("retrain").values():
        given = task.get("inputs", {})
        for role, source in given.get("artifacts", {}).items():
            if not role.startswith("pipelinechannel"):
                digest = given["parameters"][f"{role}_digest"]
                assert producer(source).removesuffix("artifact") == producer(digest).removesuffix("digest")


def producer(source):
    (value,) = source.values()
    return value if isinstance(value, str) else f"{value['producerTask']}-{value.get('outputArtifactKey', 'digest')}"


def test_the_pipeline_branches_on_fixed_words_only_and_never_on_one_side_alone():
    conditions = [task["triggerPolicy"]["condition"] for task in tasks("retrain").values() if "triggerPolicy" in task]
    asked = [
        "inputs.parameter_values['pipelinechannel--schema-verdict'] != 'fail'",
        "inputs.parameter_values['pipelinechannel--drift-verdict'] != 'fail'",
        "inputs.parameter_values['pipelinechannel--gate-verdict'] == 'pass'",
    ]
    assert sorted(conditions) == sorted([*asked, *(f"!({one})" for one in asked)])


def test_a_run_without_a_model_fails_with_its_reason_or_by_choice_does_not(tmp_path):
    refusing = {key: box for key, box in containers("retrain").items() if key.startswith("exec-refused")}
    assert len(refusing) == 3
    for box in refusing.values():
        (word,) = box["args"]
        assert word == "{{$.inputs.parameters['reason']}}"
        ended = subprocess.run([sys.executable, *box["command"][1:], "why"], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (3, "why\n")
    compile_pipelines(tmp_path, ClusterSettings(when_refused="succeed"))
    others = {key for key in containers("retrain") if key.startswith("exec-refused")}
    assert set(containers("retrain", tmp_path)) == set(containers("retrain")) - others


@pytest.mark.parametrize(
    ("ended", "roles"),
    [
        ("stopped", ["snapshot", "baseline", "schema", "drift"]),
        ("judged", [*(step.role for step in STEPS)][:-2]),
        ("registered", [*(step.role for step in STEPS)][:-1]),
    ],
)
def test_the_report_reads_all_artifacts_of_a_run_that_ended_so_each_by_its_digest(ended, roles):
    box = containers("retrain")[f"exec-report-{ended}"]
    artifacts = [word for word in box["args"] if word.startswith("--artifact=")]
    assert artifacts == [
        f"--artifact={{{{$.inputs.artifacts['{role}'].path}}}}@{{{{$.inputs.parameters['{role}_digest']}}}}"
        for role in roles
    ]
    known = {flag for option in typer.main.get_command(app).commands["report"].params for flag in option.opts}
    assert {word.partition("=")[0] for word in box["args"]} <= known


def test_a_run_that_fails_on_purpose_has_written_its_report_before():
    after = {name: task["dependentTasks"] for name, task in tasks("retrain").items() if name.startswith("refused")}
    assert after == {"refused": ["report-judged"], "refused-2": ["report-stopped"], "refused-3": ["report-stopped-2"]}


def test_settings_of_a_cluster_reach_the_pods_that_they_name(tmp_path):
    settings = tmp_path / "cluster.yaml"
    settings.write_text(
        "images: {model: 'registry.example/fraud@sha256:" + "a" * 64 + "'}\n"
        "resources: {train: {cpu: '8', memory: 32G, gpu: 2}}\n"
        "timeouts: {train: 6h}\n"
        "volumes: [{claim: deliveries, path: /data, steps: [snapshot]}]\n"
        "checkpoint_volume: checkpoints\n"
        "node_selector: {pool: gpu}\n"
        "tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]\n"
    )
    more = ["--volume", "reviews:/reviews:snapshot,schema", "--timeout", "scan=90m", "--gpu"]
    out = tmp_path / "out"
    assert CliRunner().invoke(app, ["compile", "--out", str(out), "--settings", str(settings), *more]).exit_code == 0
    train = containers("retrain", out)["exec-train"]
    assert train["image"] == "registry.example/fraud@sha256:" + "a" * 64
    assert train["resources"]["resourceMemoryLimit"] == "32G"
    assert train["resources"]["accelerator"]["count"] == "2"
    assert {"name": "HOLDFAST_GPUS", "value": "2"} in train["env"]
    _, platform = yaml.safe_load_all((out / "retrain.yaml").read_text())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    mounts = {key: {m["constant"]: m["mountPath"] for m in pod.get("pvcMount", ())} for key, pod in pods.items()}
    assert mounts["exec-snapshot"] == {"deliveries": "/data", "reviews": "/reviews"}
    assert mounts["exec-schema"] == {"reviews": "/reviews"}
    assert mounts["exec-train"] == {"checkpoints": "/tmp/holdfast/checkpoints"}
    # The folders above a mounted volume belong to root: a step could make nothing next to it.
    assert not Path(CACHE).is_relative_to(Path(CHECKPOINTS).parent)
    assert [pods[f"exec-{step}"]["activeDeadlineSeconds"] for step in ("train", "scan")] == ["21600", "5400"]
    on_gpu = {key for key, pod in pods.items() if pod.get("nodeSelector") == {"labels": {"pool": "gpu"}}}
    assert on_gpu == {"exec-scan", "exec-train", "exec-backdoor", "exec-attack", "exec-certify"}
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert pods["exec-train"]["tolerations"] == [taint]


def compiled(tmp_path, *words):
    """The pipeline, and what its pods get from Kubernetes, by executor."""
    assert CliRunner().invoke(app, ["compile", "--out", str(tmp_path), *words]).exit_code == 0
    pipeline, platform = yaml.safe_load_all((tmp_path / "retrain.yaml").read_text())
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def secrets(pod):
    """Secret -> its keys and the environment variables that the pod gets them as."""
    return {
        one["secretName"]: {key["secretKey"]: key["envVar"] for key in one["keyToEnv"]}
        for one in pod.get("secretAsEnv", ())
    }


def test_credentials_of_the_source_reach_the_step_that_reads_it_and_no_other(tmp_path):
    secret = "orders-s3:access=AWS_ACCESS_KEY_ID,secret=AWS_SECRET_ACCESS_KEY"
    _, pods = compiled(tmp_path, "--source-secret", secret)
    assert secrets(pods["exec-snapshot"]) == {
        "orders-s3": {"access": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
    }
    assert not [key for key, pod in pods.items() if "orders-s3" in secrets(pod) and key != "exec-snapshot"]


def test_a_pipeline_that_notifies_posts_every_end_and_the_reasons_of_a_refusal(tmp_path):
    pipeline, pods = compiled(tmp_path, "--notify", "secret:slack/hook")
    end = pipeline["root"]["dag"]["tasks"]["notify-end"]
    assert end["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert end["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == end["dependentTasks"][0]
    told = {key: pod for key, pod in pods.items() if "notify" in key}
    assert len(told) == 4  # the end; the gate, the schema and the drift that refuse
    assert all(secrets(pod) == {"slack": {"hook": "HOLDFAST_NOTIFY_URL"}} for pod in told.values())
    refusing = [
        dag["dag"]["tasks"] for dag in pipeline["components"].values()
        if any(key.startswith("refused") for key in dag.get("dag", {}).get("tasks", {}))
    ]  # fmt: skip
    for tasks_there in refusing:
        failing = next(key for key in tasks_there if key.startswith("refused"))
        assert tasks_there[failing]["dependentTasks"][0].startswith("notify-refusal")


def test_a_run_that_may_end_as_succeeded_posts_its_refusal_too(tmp_path):
    pipeline, pods = compiled(tmp_path, "--notify", "https://hooks.example/x", "--when-refused", "succeed")
    boxes = pipeline["deploymentSpec"]["executors"]
    told = [box["container"] for key, box in boxes.items() if "notify" in key]
    assert len(told) == 4
    assert all({"name": "HOLDFAST_NOTIFY_URL", "value": "https://hooks.example/x"} in box["env"] for box in told)
    assert not [key for key in boxes if "refused" in key]


SIGNING = (
    "signing:\n  keys: {data-owner: key-data, trainer: key-trainer, attacker: key-attacker, gate: key-gate}\n"
    "  statements: statements\n  trust: trust\n  waivers: /waivers/digits\n"
    "volumes: [{claim: waivers, path: /waivers, steps: [gate]}]\n"
)


def test_each_pod_gets_the_key_of_its_role_and_no_other(tmp_path):
    (tmp_path / "cluster.yaml").write_text(SIGNING)
    pipeline, pods = compiled(tmp_path, "--settings", str(tmp_path / "cluster.yaml"))
    boxes = {key: box["container"]["args"] for key, box in pipeline["deploymentSpec"]["executors"].items()}
    for step in STEPS:
        if step.pipeline != "retrain":
            continue
        pod, words = pods[f"exec-{step.name}"], boxes[f"exec-{step.name}"]
        held = {one["secretName"]: one["mountPath"] for one in pod["secretAsVolume"]}
        key = f"key-{step.signed_by.removesuffix('-owner')}"
        assert held.pop(key) == "/var/run/holdfast/key"
        asks = step.name in ("baseline", "gate", "register")
        assert held == ({"trust": "/var/run/holdfast/trust"} if asks else {})
        assert "--key=/var/run/holdfast/key/key.pem" in words
        assert ("--trust=/var/run/holdfast/trust/trust.yaml" in words) == asks
        assert words[-1] == "--attestations=/var/run/holdfast/statements/$(HOLDFAST_RUN)"
        mounts = {one["constant"]: one["mountPath"] for one in pod["pvcMount"]}
        assert mounts["statements"] == "/var/run/holdfast/statements"
    assert "--waivers=/waivers/digits" in boxes["exec-gate"]


def test_waivers_lie_on_a_volume_of_the_gate_and_are_checked_by_a_trust_policy(tmp_path):
    for text, found in (
        (SIGNING.replace("steps: [gate]", "steps: [train]"), "expected a folder on a volume of the step gate"),
        (SIGNING.replace("  trust: trust\n", ""), "expected trust with it"),
    ):
        (tmp_path / "cluster.yaml").write_text(text)
        ended = CliRunner().invoke(
            app, ["compile", "--out", str(tmp_path), "--settings", str(tmp_path / "cluster.yaml")]
        )
        assert found in str(ended.exception)


def test_a_pipeline_without_a_place_to_post_to_has_no_exit_handler():
    assert "notify" not in (PIPELINES / "retrain.yaml").read_text()


def test_a_step_in_parts_is_a_task_for_each_and_one_that_joins_them_without_a_gpu(tmp_path):
    shards = {"attack": 2, "certify": 3}
    compile_pipelines(tmp_path, ClusterSettings(shards=shards, gpu=True, resources={"attack": PodSize(memory="16G")}))
    found = containers("retrain", tmp_path)
    parts = {key for key in found if "-part" in key}
    assert parts == {"exec-attack-part", "exec-attack-part-2"} | {f"exec-certify-part{n}" for n in ("", "-2", "-3")}
    assert all("accelerator" in found[key]["resources"] for key in parts)
    assert {found[key]["resources"]["resourceMemoryLimit"] for key in parts if "attack" in key} == {"16G"}
    for step, count in shards.items():
        joins = [word for word in found[f"exec-{step}"]["args"] if word.startswith("--part=")]
        assert joins == [
            f"--part={{{{$.inputs.artifacts['part_{n}'].path}}}}@{{{{$.inputs.parameters['part_{n}_digest']}}}}"
            for n in range(1, count + 1)
        ]
        assert "accelerator" not in found[f"exec-{step}"]["resources"]
    given = [
        task["inputs"]["parameters"]["shard"]["runtimeValue"]["constant"]
        for part in spec("retrain", tmp_path)["components"].values()
        for name, task in part.get("dag", {}).get("tasks", {}).items()
        if "-part" in name
    ]
    assert sorted(given) == ["1/2", "1/3", "2/2", "2/3", "3/3"]


def test_the_order_of_parts_and_steps_is_in_the_graph(tmp_path):
    compile_pipelines(tmp_path, ClusterSettings(shards={"attack": 2}))
    dags = [part["dag"]["tasks"] for part in spec("retrain", tmp_path)["components"].values() if "dag" in part]
    (tasks,) = [found for found in dags if "gate" in found]
    assert {"attack-part", "attack-part-2", "train"} <= set(tasks["attack"]["dependentTasks"])
    assert "attack-part" not in tasks["attack-part-2"]["dependentTasks"]
    assert "attack" in tasks["gate"]["dependentTasks"]


def test_one_shard_is_the_pipeline_without_shards(tmp_path):
    compile_pipelines(tmp_path, ClusterSettings(shards={"attack": 1, "certify": 1}))
    assert (tmp_path / "retrain.yaml").read_text() == (PIPELINES / "retrain.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--notify", "hooks.example"], "--notify.url"),
        (["--notify", "https://ann:pw@hooks.example"], "--notify.url"),
        (["--notify", "secret:"], "expected URL or secret:NAME/KEY"),
        (["--source-secret", "s3"], "expected SECRET:KEY=VARIABLE"),
        (["--source-secret", "s3:a=b-c"], "--source-secrets"),
        (["--resources", "training=8,32G"], "--resources.training"),
        (["--resources", "train=8"], "expected STEP=CPU,MEMORY"),
        (["--resources", "train=8,32 GB"], "--resources.train.memory"),
        (["--timeout", "train=soon"], "--timeouts.train"),
        (["--volume", "deliveries"], "expected CLAIM:PATH"),
        (["--volume", "deliveries:data"], "expected an absolute path in the pod"),
        (["--volume", "a:/data", "--volume", "b:/data"], "expected different paths"),
        (["--image", "gpu=x"], "--images.gpu"),
        (["--shards", "attack"], "expected STEP=N"),
        (["--shards", "attack=many"], "expected STEP=N, a whole number, found 'many'"),
        (["--shards", "attack=0"], "--shards.attack"),
        (["--shards", "certify=65"], "--shards.certify"),
        (["--shards", "train=2"], "expected one of the steps that work in parts: attack, certify"),
        (["--when-refused", "ignore"], "--when-refused"),
    ],
)  # fmt: skip
def test_an_option_that_means_nothing_is_one_line(tmp_path, words, found):
    ended = CliRunner().invoke(app, ["compile", "--out", str(tmp_path / "out"), *words])
    assert isinstance(ended.exception, WorkloadError)
    assert found in str(ended.exception)
    assert not (tmp_path / "out").exists()


def test_register_hangs_on_the_gate_and_training_on_both_data_checks():
    found = spec("retrain")["components"]
    holder = {task: name for name, part in found.items() for task in part.get("dag", {}).get("tasks", {})}
    asked = {
        name: task["triggerPolicy"]["condition"] for name, task in tasks("retrain").items() if "triggerPolicy" in task
    }

    def conditions(task):
        parts = [holder[task].removeprefix("comp-")]
        while parts[-1] in holder:
            parts.append(holder[parts[-1]].removeprefix("comp-"))
        return [asked[part].partition("--")[2] for part in parts if part in asked]

    delivery = ["drift-verdict'] != 'fail'", "schema-verdict'] != 'fail'"]
    assert conditions("register") == ["gate-verdict'] == 'pass'", *delivery]
    assert conditions("gate") == conditions("train") == conditions("scan") == delivery
    assert set(spec("retrain")["root"]["dag"]["tasks"]) == {
        "snapshot", "baseline", "schema", "drift", "condition-branches-1"
    }  # fmt: skip


def test_pr_gate_is_retrain_without_its_registration():
    assert set(tasks("retrain")) - set(tasks("pr_gate")) == {"register", "report-registered"}
    assert set(tasks("pr_gate")) - set(tasks("retrain")) == {"report-judged-2"}
    taken = [spec(name)["root"]["inputDefinitions"] for name in ("pr_gate", "retrain")]
    assert taken[0] == taken[1]


def test_steps_that_look_outside_their_inputs_are_not_cached_and_train_is_retried():
    every = tasks("retrain") | tasks("rollout")
    steps = {name: task for name, task in every.items() if not name.startswith("condition")}
    steps = {name: task for name, task in steps.items() if not name.startswith("report")}
    uncached = {name for name, task in steps.items() if not task.get("cachingOptions", {}).get("enableCache")}
    assert uncached == {"snapshot", "baseline", "gate", "register", "rollout"}
    assert {name for name, task in steps.items() if "retryPolicy" in task} == {"baseline", "train", "register"}
    policy = steps["train"]["retryPolicy"]
    assert policy["backoffDuration"] == "60s"
    # Argo counts it from the start of the first try: a training of ten hours is to be tried again, too.
    assert int(policy["backoffMaxDuration"].removesuffix("s")) > 7 * 86400


def test_a_gpu_is_asked_for_by_the_steps_that_compute_and_only_on_demand(tmp_path):
    compile_pipelines(tmp_path, ClusterSettings(gpu=True))

    def asking(folder):
        return {name for name, box in executors("retrain", folder).items() if "accelerator" in box["resources"]}

    assert asking(tmp_path) == {"exec-scan", "exec-train", "exec-backdoor", "exec-attack", "exec-certify"}
    assert asking(PIPELINES) == set()


def test_a_registry_and_a_tag_of_ones_own_change_the_images_and_nothing_else(tmp_path):
    compile_pipelines(tmp_path, ClusterSettings(registry="registry.example/team/", tag="4f2c1d7"))
    assert executors("rollout", tmp_path)["exec-rollout"]["image"] == "registry.example/team/holdfast/serving:4f2c1d7"
    text = (tmp_path / "retrain.yaml").read_text()
    back = re.sub(r"registry\.example/team/(holdfast/\w+):4f2c1d7", rf"registry.invalid/\1:{__version__}", text)
    assert back == (PIPELINES / "retrain.yaml").read_text()


@pytest.mark.parametrize("tag", ["latest", "main", "", "a b", "../x"])
def test_a_tag_that_moves_is_refused(tmp_path, tag):
    found = CliRunner().invoke(app, ["compile", "--out", str(tmp_path / "out"), "--tag", tag])
    assert isinstance(found.exception, WorkloadError)
    assert "--tag: expected an immutable image tag" in str(found.exception)
    assert not (tmp_path / "out").exists()


def test_credentials_come_from_an_optional_secret_and_only_where_mlflow_is_spoken_to():
    _, platform = yaml.safe_load_all((PIPELINES / "retrain.yaml").read_text())
    all_steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    secrets = {key: executor for key, executor in all_steps.items() if "secretAsEnv" in executor}
    assert set(secrets) == {"exec-baseline", "exec-register"}
    for executor in secrets.values():
        assert all(secret["optional"] for secret in executor["secretAsEnv"])


def test_network_policies_can_tell_the_steps_apart():
    for name in ("retrain", "pr_gate", "rollout"):
        *_, platform = yaml.safe_load_all((PIPELINES / f"{name}.yaml").read_text())
        found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        steps = {key: box["podMetadata"]["labels"]["holdfast.dev/step"] for key, box in found.items()}
        reports = {key: "report" for key in containers(name) if key.startswith("exec-report")}
        assert steps == {key: key.removeprefix("exec-") for key in executors(name)} | reports


def test_nothing_that_is_applied_pulls_a_name_of_ours_from_a_public_registry():
    """A name without a host is pulled from one where anybody may own it."""
    found = []
    for path in sorted(Path(__file__).parents[2].joinpath("manifests").rglob("*.yaml")):
        found += re.findall(
            r"(?m)^[ -]*(?:image|name): [\"']?(\S*holdfast/(?:data|model|serving|mlflow)\b)", path.read_text()
        )
    assert len(found) > 20
    assert {name.split("/")[0] for name in found} == {"registry.invalid"}
