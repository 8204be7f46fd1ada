"""A real kube-apiserver and etcd on loopback, Seldon's and KServe's CRDs, and a small model of their operators.

The models of the operators watch the real API and move a real Envoy, so that a weight in an object is traffic. What
they know is what was read in the operators' sources: Seldon changes routes only while every Deployment is ready; KServe
splits traffic between Knative's newest ready revision and the one that it remembers as rolled out last.
"""

import http.client
import http.server
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError
from holdfast.http_client import Trust
from holdfast.kubernetes.access import Access
from holdfast.kubernetes.api import ConflictError, Kube, MissingError, PassingError, Resource
from holdfast.processes import dying_with_us
from holdfast.serving.envoy.config import ROUTES, Ingress, Layout, binary, bootstrap, clusters
from holdfast.serving.envoy.routes import LiveTraffic, probe_routes, routes
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.cluster.kserve import PERCENT, services_in
from holdfast.serving.rollout.cluster.prometheus import Prometheus
from holdfast.serving.rollout.cluster.run import TargetCluster
from holdfast.serving.rollout.cluster.seldon_v1 import deployments_in, predictors
from holdfast.serving.rollout.cluster.seldon_v2 import experiments_in, models_in
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.engine.controller import Pace
from holdfast.workload.schema import RolloutPlan, read_plan

ROOT = Path(__file__).parents[4]
SHARED = Path(os.environ.get("HOLDFAST_SHARED", ROOT.parent / "shared"))
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", None)
NAMESPACES = Resource("", "v1", "namespaces", None)
ADMIN_TOKEN = "admin-of-the-test"
INGRESS = Ingress("m", 1, 2)
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with kube-apiserver and etcd, as envtest lays it out."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    folder = Path(named) if named else tmp_path_factory.mktemp("kube-assets")
    unpack = SHARED / "tools" / "kube-assets"
    if not named and unpack.is_file():
        subprocess.run([str(unpack), str(folder)], check=False, capture_output=True, timeout=120)
    if not all((folder / name).is_file() for name in ("kube-apiserver", "etcd")):
        pytest.skip("needs kube-apiserver and etcd: set KUBEBUILDER_ASSETS to their folder (setup-envtest makes one)")
    return folder


@pytest.fixture(scope="session")
def crds() -> list[dict[str, object]]:
    """Seldon's custom resource definitions, and KServe's where the folder has it; else the smallest that will do."""
    folder = Path(os.environ.get("HOLDFAST_CRDS", SHARED / "crds"))
    files = sorted(folder.glob("*.seldon.io_*.yaml"))
    if len(files) < 3:
        pytest.skip("needs Seldon's CRDs: set HOLDFAST_CRDS to a folder with them (SeldonIO/seldon-core)")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    theirs = folder / "serving.kserve.io_inferenceservices.yaml"
    files += [theirs] if theirs.is_file() else []
    found = [slim(yaml.load(path.read_text(), Loader=loader)) for path in files]
    return [*found, *([] if theirs.is_file() else [inference_services()])]


def inference_services():
    """What KServe's own definition has of what the driver uses; a predictor has any other content."""
    share = {"type": "integer", "format": "int64"}
    predictor = {**OPEN, "properties": {"canaryTrafficPercent": share}}
    spec = {"type": "object", "required": ["predictor"], "properties": {"predictor": predictor}}
    names = {"kind": "InferenceService", "plural": "inferenceservices", "singular": "inferenceservice"}
    return definition("serving.kserve.io", "v1beta1", names, spec, {"subresources": {"status": {}}})


def definition(group, version, names, spec, more):
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": OPEN}}}
    one = {"name": version, "served": True, "storage": True, "schema": schema, **more}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [one]},
    }


def slim(crd):
    """A definition as Seldon ships it, made small enough for etcd and whole enough for the API server.

    Only the newest served version stays, without descriptions; what has no type (a graph's recursive children) is open.
    """
    versions = crd["spec"]["versions"]
    kept = [one for one in versions if one["name"] == "v1"] or versions
    for one in kept:
        one["schema"] = {"openAPIV3Schema": closed(one["schema"]["openAPIV3Schema"])}
    return {
        **{key: crd[key] for key in ("apiVersion", "kind")},
        "metadata": {"name": crd["metadata"]["name"]},
        "spec": {**{key: value for key, value in crd["spec"].items() if key != "conversion"}, "versions": kept},
    }


def closed(schema):
    """The schema without descriptions, every part with a type."""
    found = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in found:
        found["properties"] = {name: closed(part) for name, part in found["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = closed(found[key])
    typed = found.get("type") or found.get("x-kubernetes-int-or-string") or found.get("$ref")
    return found if typed else {**found, **OPEN}


@dataclass(frozen=True)
class Api:
    """A running API server."""

    url: str
    ca_file: Path

    def kube(self, token: str = ADMIN_TOKEN) -> Kube:
        return Kube(Access(self.url, Trust(ca_file=self.ca_file), token))


@contextmanager
def running(command: list[str], folder: Path, name: str) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, preexec_fn=dying_with_us(signal.SIGKILL)
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def etcd_command(assets, port, peer):
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    listen = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peers]
    single = ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"]
    return [str(assets / "etcd"), "--data-dir", "etcd", *listen, *single, "--unsafe-no-fsync"]


def api_command(assets, etcd, port):
    # The service account plug-in would want a controller that makes tokens; nothing else is switched off.
    flags = {
        "etcd-servers": f"http://127.0.0.1:{etcd}",
        "cert-dir": "certs",
        "secure-port": port,
        "bind-address": "127.0.0.1",
        "service-cluster-ip-range": "10.0.0.0/24",
        "token-auth-file": "tokens.csv",
        "authorization-mode": "RBAC",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": "sa.key",
        "service-account-signing-key-file": "sa.key",
        "disable-admission-plugins": "ServiceAccount",
        "endpoint-reconciler-type": "none",
    }
    return [str(assets / "kube-apiserver"), *(f"--{name}={value}" for name, value in flags.items())]


def wait_for(what: Callable[[], bool], seconds: float, name: str) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"{name}: not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def one_registry_worker(tracking: str) -> Iterator[None]:
    """One child with MLflow for all rollouts of a module: each would start its own, which costs seconds of CPU."""
    with registry_worker.shared_worker():
        registry_worker.history(tracking, "tiny")  # it starts now, so that no test takes it for a child of its own
        yield


@pytest.fixture(scope="session")
def api(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, which makes the service accounts' key")
    folder = tmp_path_factory.mktemp("api")
    key = ["openssl", "genrsa", "-out", "sa.key", "2048"]
    subprocess.run(key, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,1,"system:masters"\n')
    etcd, peer, port = free_port(), free_port(), free_port()
    found = Api(f"https://127.0.0.1:{port}", folder / "certs" / "apiserver.crt")
    with (
        running(etcd_command(assets, etcd, peer), folder, "etcd"),
        running(api_command(assets, etcd, port), folder, "api") as process,
    ):

        def ready():
            assert process.poll() is None, (folder / "api.log").read_text()[-2000:]
            made = found.kube()
            try:
                made.get(NAMESPACES, "default")
            except (RolloutError, OSError):
                return False
            finally:
                made.close()
            return True

        wait_for(ready, 90, "kube-apiserver")
        yield found


def istio() -> dict[str, object]:
    """VirtualService with any content: Istio's own definition is not needed to be read."""
    names = {"kind": "VirtualService", "plural": "virtualservices", "singular": "virtualservice"}
    return definition("networking.istio.io", "v1beta1", names, OPEN, {})


@pytest.fixture(scope="session")
def seldon(api: Api, crds: list[dict[str, object]]) -> Api:
    """The API server with all definitions, established."""
    kube = api.kube()
    for body in (*crds, istio()):
        kube.create(CRDS, body)

    def established():
        found = [(item.get("status") or {}).get("conditions") or [] for item in kube.list(CRDS)]
        return all(any(c["type"] == "Established" and c["status"] == "True" for c in told) for told in found)

    wait_for(established, 30, "CRDs")
    kinds = (deployments_in("default"), experiments_in("default"), models_in("default"), services_in("default"))
    for resource in kinds:
        wait_for(lambda resource=resource: served(kube, resource), 30, resource.plural)
    kube.close()
    return api


def served(kube, resource):
    try:
        kube.list(resource)
    except RolloutError:
        return False
    return True


@pytest.fixture
def kube(seldon: Api) -> Iterator[Kube]:
    made = seldon.kube()
    yield made
    made.close()


@pytest.fixture
def namespace(kube: Kube) -> str:
    name = f"t-{secrets.token_hex(4)}"
    kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


class Echo(http.server.BaseHTTPRequestHandler):
    """A model server: answers with its name; `server.fail` makes it answer 500. To a POST it answers as the V2 protocol
    has it, with `server.label`. Status and milliseconds of all answers are kept, as a queue-proxy counts them.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        self.reply(self.server.name.encode())
        self.server.count += 1

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Host"].startswith("holdfast"):  # through the mesh; probes come past it
            self.do_GET()
            return
        label, count = self.server.label, 10
        probabilities = [float(number == label) for number in range(count)]
        outputs = [
            {"name": "label", "shape": [1], "datatype": "INT64", "data": [label]},
            {"name": "probabilities", "shape": [1, count], "datatype": "FP32", "data": probabilities},
        ]
        self.reply(json.dumps({"model_version": self.server.name, "outputs": outputs}).encode())
        self.server.probed += 1

    def reply(self, body):
        began, status = time.perf_counter(), 500 if self.server.fail else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.answers.append((status, 1000 * (time.perf_counter() - began)))

    def log_message(self, *args):
        pass


@contextmanager
def serving(handler: type, **attributes: object) -> Iterator[http.server.ThreadingHTTPServer]:
    """An HTTP server on a free loopback port, in a thread."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    for name, value in attributes.items():
        setattr(server, name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Mesh:
    """A real Envoy and the two servers behind it; what the operators' models move."""

    layout: Layout
    port: int
    admin: int
    stable: http.server.ThreadingHTTPServer
    candidate: http.server.ThreadingHTTPServer
    version: int = 0
    route: tuple[int, bool] = (0, False)

    def set(self, weight: int, shadow: bool) -> None:
        """Returns when Envoy has it."""
        if self.version and self.route == (weight, shadow):
            return
        self.version += 1
        content = routes(self.version, INGRESS, LiveTraffic(weight, shadow))
        replace_file(self.layout.routes, json.dumps(content).encode())
        wait_for(self._taken, 5, "Envoy's routes")
        self.route = (weight, shadow)

    def get(self, port: int, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def send(self, count: int) -> list[tuple[int, str]]:
        """Status and who answered, of `count` requests."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        found = []
        for _ in range(count):
            connection.request("POST", "/v2/models/m/infer", b"{}")
            response = connection.getresponse()
            found.append((response.status, response.read().decode()))
        connection.close()
        return found

    def probes(self, per_second: float) -> dict[str, object]:
        """The section of a target, with an address that reaches each arm past the mesh."""
        urls = (f"http://127.0.0.1:{arm.server_address[1]}/v2/models/m/infer" for arm in (self.stable, self.candidate))
        champion, candidate = ({"url": url} for url in urls)
        return {"champion": champion, "candidate": candidate, "per_second": per_second}

    @contextmanager
    def clients(self) -> Iterator[list[tuple[int, str]]]:
        """Requests without pause while the block runs; yields the list of answers that were not 200."""
        stop, bad = threading.Event(), []

        def run():
            while not stop.is_set():
                bad.extend(answer for answer in self.send(20) if answer[0] != 200)
                time.sleep(0.02)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield bad
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def share(self, count: int) -> float:
        """Of `count` live requests, the share that the candidate answered."""
        return sum(who == "candidate" for _, who in self.send(count)) / count

    def _taken(self) -> bool:
        dump = json.loads(self.get(self.admin, "/config_dump?resource=dynamic_route_configs")[1])
        versions = {config["route_config"]["name"]: config.get("version_info") for config in dump.get("configs", [])}
        return versions.get(ROUTES) == str(self.version)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    try:
        envoy = binary()
    except RolloutError as error:
        pytest.skip(str(error))
    layout, port, admin = Layout(tmp_path / "envoy"), free_port(), free_port()
    for path in (layout.clusters, layout.routes):
        path.parent.mkdir(parents=True)
    static = bootstrap(layout, port, 250.0, INGRESS)
    static["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}
    with (
        serving(Echo, name="stable", fail=False, count=0, label=3, probed=0, answers=[]) as stable,
        serving(Echo, name="candidate", fail=False, count=0, label=3, probed=0, answers=[]) as candidate,
    ):
        ports = {"stable": stable.server_address[1], "candidate": candidate.server_address[1]}
        layout.bootstrap.write_text(json.dumps(static))
        layout.clusters.write_text(json.dumps(clusters(ports, 0)))
        layout.routes.write_text(json.dumps(routes(0, INGRESS, LiveTraffic())))
        layout.probe_routes.write_text(json.dumps(probe_routes(0, LiveTraffic())))
        command = [str(envoy), "-c", str(layout.bootstrap), "--concurrency", "1", "--disable-hot-restart"]
        with running([*command, "--log-level", "warning"], tmp_path, "envoy"):
            found = Mesh(layout, port, admin, stable, candidate)

            def ready():
                try:
                    return found.get(admin, "/ready") == (200, "LIVE\n")
                except OSError:
                    return False

            wait_for(ready, 20, "Envoy")
            yield found


@dataclass
class Operator:
    """What Seldon's operators and KServe's do, as far as a rollout can see it; one thread that watches the real API."""

    api: Api
    namespace: str
    mesh: Mesh
    unready: set[str] = field(default_factory=set)
    """Predictors or Models whose pods are not ready."""
    pause: float = 0.0
    """Seconds before it acts on a change."""
    loaded: dict[str, str] = field(default_factory=dict)
    """Predictor or Model -> the URI that its pods serve; `main` of an InferenceService is what has most traffic."""
    revisions: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """InferenceService -> the predictor of each revision, oldest first."""
    remembers_at_once: bool = False
    """Whether KServe goes back from 100 % at one look, as older versions do; newer ones notice first, then route."""
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _poke: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._kube = self.api.kube()
        watched = [kind(self.namespace) for kind in (deployments_in, experiments_in, models_in, services_in)]
        self._threads = [threading.Thread(target=self._work, daemon=True)]
        self._threads += [threading.Thread(target=self._watch, args=(kind,), daemon=True) for kind in watched]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._poke.set()
        for thread in self._threads:
            thread.join(10)
        self._kube.close()
        assert not self.errors, self.errors

    def look(self) -> None:
        """Something outside the API has changed (readiness)."""
        self._poke.set()

    def _watch(self, kind: Resource) -> None:
        """Streams events of one kind; every event is only a hint to look."""
        context = ssl.create_default_context(cafile=self.api.ca_file)
        host, port = self.api.url.removeprefix("https://").split(":")
        while not self._stop.is_set():
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=0.5)
            try:
                path = f"{kind.path()}?watch=1&timeoutSeconds=300"
                connection.request("GET", path, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
                response = connection.getresponse()
                while not self._stop.is_set() and response.readline():
                    self._poke.set()
            except (OSError, http.client.HTTPException):
                continue
            finally:
                connection.close()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._poke.wait(0.5)
            self._poke.clear()
            if self.pause:
                time.sleep(self.pause)
            try:
                for item in self._kube.list(deployments_in(self.namespace)):
                    self._reconcile(item)
                for item in self._kube.list(models_in(self.namespace)):
                    self._model(item)
                for item in self._kube.list(services_in(self.namespace)):
                    self._inference(item)
                self._experiment(self._kube.list(experiments_in(self.namespace)))
            except (ConflictError, MissingError, PassingError):
                self._poke.set()  # as a work queue does: again
            except RolloutError as error:
                self.errors.append(str(error))

    def _reconcile(self, item):
        """v1: Deployments first; routes only while all of them are ready; the status last."""
        name, here = item["metadata"]["name"], item["spec"]["predictors"]
        statuses, whole = {}, True
        for predictor in here:
            ready = predictor["name"] not in self.unready
            whole &= ready
            deployment = f"{name}-{predictor['name']}-0-{predictor['graph']['name']}"
            self._deployment(deployment, predictor, ready)
            replicas = predictor.get("replicas", 1)
            statuses[deployment] = {"replicas": replicas, "availableReplicas": replicas if ready else 0}
        if whole:
            self._route(item, here)
        status = {"state": "Available" if whole else "Creating", "deploymentStatus": statuses}
        if {key: item.get("status", {}).get(key) for key in status} != status:
            change = [{"op": "add", "path": "/status", "value": status}]
            self._kube.patch(deployments_in(self.namespace), name, change, "status")

    def _deployment(self, name, predictor, ready):
        kind = Resource("apps", "v1", "deployments", self.namespace)
        uri, replicas = predictor["graph"].get("modelUri", ""), predictor.get("replicas", 1)
        init = {"name": "loader", "image": "loader:1", "args": [uri, "/mnt/models"]}
        pod = {"initContainers": [init], "containers": [{"name": "model", "image": "server:1"}]}
        template = {"metadata": {"labels": {"app": name}}, "spec": pod}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        try:
            found = self._kube.get(kind, name)
        except MissingError:
            found = self._kube.create(kind, body)
        if found["spec"]["template"]["spec"]["initContainers"][0]["args"][0] != uri:
            found = self._kube.merge(kind, name, {"spec": spec})
        if ready:
            self.loaded[predictor["name"]] = uri
        counts = dict.fromkeys(("replicas", "updatedReplicas"), replicas)
        counts |= {"readyReplicas": replicas if ready else 0, "availableReplicas": replicas if ready else 0}
        wanted = {"observedGeneration": found["metadata"]["generation"], **counts}
        if {key: found.get("status", {}).get(key, 0) for key in wanted} != wanted:
            self._kube.merge(kind, name, {"status": wanted}, "status")

    def _route(self, item, here):
        """The VirtualService, then Envoy: what a mesh does in between is not modelled."""
        name = item["metadata"]["name"]
        live = [predictor for predictor in here if not predictor.get("shadow")]
        shadow = next((predictor for predictor in here if predictor.get("shadow")), None)
        parts = [
            {"destination": {"host": f"{name}-{p['name']}", "subset": p["name"]}, "weight": p.get("traffic", 0)}
            for p in live
        ]
        if len(parts) == 1:
            parts[0]["weight"] = 100
        route = {"route": parts}
        if shadow is not None:
            route["mirror"] = {"host": f"{name}-{shadow['name']}", "subset": shadow["name"]}
        kind = Resource("networking.istio.io", "v1beta1", "virtualservices", self.namespace)
        reference = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment", "name": name}
        meta = {"name": f"{name}-http", "ownerReferences": [{**reference, "uid": item["metadata"]["uid"]}]}
        body = {"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": meta}
        weight = sum(part["weight"] for part in parts if part["destination"]["subset"] != "main")
        self.mesh.set(weight, shadow is not None)
        try:
            found = self._kube.get(kind, meta["name"])
        except MissingError:
            self._kube.create(kind, {**body, "spec": {"http": [route]}})
            return
        if found["spec"] != {"http": [route]}:
            change = [{"op": "replace", "path": "/spec", "value": {"http": [route]}}]
            self._kube.patch(kind, meta["name"], change)

    def _model(self, item):
        """v2: a Model is ready when its content is loaded."""
        name, ready = item["metadata"]["name"], item["metadata"]["name"] not in self.unready
        if ready:
            self.loaded[name] = item["spec"]["storageUri"]
        self._conditions(models_in(self.namespace), item, {"ModelReady": ready, "Ready": ready})

    def _experiment(self, items):
        """v2: shares of weights; without an Experiment, or with a candidate that cannot serve, all goes to default."""
        for item in items:
            name = item["metadata"]["name"]
            if item["metadata"].get("deletionTimestamp"):
                self.mesh.set(0, False)
                self._kube.merge(experiments_in(self.namespace), name, {"metadata": {"finalizers": None}})
                continue
            if not item["metadata"].get("finalizers"):
                finalizer = {"metadata": {"finalizers": ["seldon.experiment.finalizer"]}}
                self._kube.merge(experiments_in(self.namespace), name, finalizer)
            arms = {arm["name"]: arm["weight"] for arm in item["spec"]["candidates"]}
            default, mirror = item["spec"]["default"], item["spec"].get("mirror")
            ready = not (self.unready & ({*arms} | ({mirror["name"]} if mirror else set())))
            share = sum(weight for arm, weight in arms.items() if arm != default) if ready else 0
            self.mesh.set(round(100 * share / sum(arms.values())), bool(mirror and ready))
            told = dict.fromkeys(("ExperimentReady", "CandidatesReady", "MirrorReady"), ready)
            self._conditions(experiments_in(self.namespace), item, told)
        if not items:
            others = [self._kube.list(kind(self.namespace)) for kind in (deployments_in, services_in)]
            if not any(others):
                self.mesh.set(0, False)

    def _inference(self, item):
        """KServe and Knative: a revision for every new predictor, traffic by revision, the status last."""
        name, wanted = item["metadata"]["name"], dict(item["spec"]["predictor"])
        share, status = wanted.pop(PERCENT, None), dict(part_of(item))
        here = self.revisions.setdefault(name, [predictor(OLD)])  # what the champion's status has already
        if here[-1] != wanted:
            here.append(wanted)
        names = revision_names(name, len(here))
        ready = {one: uri_of(predictor) not in self.unready for one, predictor in zip(names, here, strict=True)}
        newest = [one for one in names if ready[one] or one == status.get("latestReadyRevision")][-1]
        targets = self._targets(status, newest, share)
        self._remember(status, newest, names[-1], targets)
        traffic = [{"revisionName": one, "percent": part, "latestRevision": first} for one, part, first in targets]
        status |= {"latestReadyRevision": newest, "latestCreatedRevision": names[-1], "traffic": traffic}
        predictors = dict(zip(names, here, strict=True))
        moved = sum(part for one, part, _ in targets if uri_of(predictors[one]) != uri_of(here[0]))
        self.mesh.set(moved, False)
        self.loaded["main"] = uri_of(predictors[max(targets, key=lambda target: target[1])[0]])
        self._inference_status(item, status, ready[names[-1]])

    def _targets(self, status, newest, share):
        """Who gets how much: as KServe asks it of Knative."""
        last, before = (status.get(f"{key}RolledoutRevision", "") for key in ("latest", "previous"))
        if self.remembers_at_once and last == newest and share is not None and share < 100:
            last = before
        if share is None or not last:
            return [(newest, 100, True)]
        return [(newest, share, True), *([(last, 100 - share, False)] if share < 100 else [])]

    def _remember(self, status, newest, created, targets):
        """Which revision had all traffic last: what goes on at less than 100 %, and what 0 % goes back to."""
        last, (_, share, _) = status.get("latestRolledoutRevision", ""), targets[0]
        alone = {one for one, _, _ in targets} == {newest}
        if last != newest and share == 100:
            status |= {"previousRolledoutRevision": last, "latestRolledoutRevision": newest}
        elif last == newest == created and share < 100 and (alone or self.remembers_at_once):
            status["latestRolledoutRevision"] = status.get("previousRolledoutRevision") or last

    def _inference_status(self, item, status, ready):
        told = {"PredictorConfigurationReady": ready, "PredictorRouteReady": True, "PredictorReady": ready}
        wanted = {"components": {"predictor": status}, "conditions": conditions(told)}
        if {key: item.get("status", {}).get(key) for key in wanted} != wanted:
            change = [{"op": "add", "path": "/status", "value": wanted}]
            self._kube.patch(services_in(self.namespace), item["metadata"]["name"], change, "status")

    def _conditions(self, kind, item, told):
        wanted = conditions(told)
        if item.get("status", {}).get("conditions") != wanted:
            self._kube.merge(kind, item["metadata"]["name"], {"status": {"conditions": wanted}}, "status")


def conditions(told):
    return [{"type": key, "status": str(value)} for key, value in told.items()]


def part_of(item):
    return item.get("status", {}).get("components", {}).get("predictor", {})


def revision_names(service, count):
    return [f"{service}-predictor-{number:05d}" for number in range(1, count + 1)]


def uri_of(predictor):
    return predictor["model"]["storageUri"]


class Exposition(http.server.BaseHTTPRequestHandler):
    """Answers like Prometheus, from a scrape of Envoy made for the question."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        form = urllib.parse.parse_qs(self.rfile.read(length).decode())
        query, moment = form["query"][0], form["time"][0]
        if self.server.scraped[0] != moment:  # all questions about one moment are answered from one scrape
            self.server.scraped = (moment, self.server.scrape())
        metric, inside = re.fullmatch(r"(\w+)\{(.*)\}\[\d+ms\]", query).groups()
        wanted = {key: json.loads(f'"{value}"') for key, value in re.findall(r'(\w+)=~"([^"]*)"', inside)}
        result = []
        for line in self.server.scraped[1].splitlines():
            name, labels, value = (
                re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups() if line[:1] != "#" else [""] * 3
            )
            found = dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))
            if name == metric and all(re.fullmatch(p, found.get(key, "")) for key, p in wanted.items()):
                result.append({"metric": found, "values": [[time.time(), value]]})
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def counters(mesh: Mesh, make_target: Callable[..., Target]) -> Iterator[Prometheus]:
    """The counters of the mesh, as a rollout on a cluster gets them."""
    with serving(Exposition, scrape=lambda: mesh.get(mesh.admin, "/stats/prometheus")[1], scraped=("", "")) as server:
        metrics = make_target("seldon-v1").metrics
        url = f"http://127.0.0.1:{server.server_address[1]}"
        made = Prometheus(metrics.model_copy(update={"prometheus": url}))
        yield made
        made.close()


@pytest.fixture
def knative(mesh: Mesh, operator: Operator) -> Iterator[dict[str, object]]:
    """Section `metrics` of a target: what the queue-proxies of all revisions count, probes too, by revision."""
    with serving(Exposition, scrape=lambda: queue_proxies(mesh, operator), scraped=("", "")) as server:
        arms = {arm: {"revision_name": f"{{{arm}}}"} for arm in ("champion", "candidate")}
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield {"prometheus": url, "series": "knative", "scrape_seconds": 1, **arms}


def queue_proxies(mesh, operator):
    lines = []
    for service, here in operator.revisions.items():
        for name, predictor in zip(revision_names(service, len(here)), here, strict=True):
            server = mesh.stable if uri_of(predictor) == uri_of(here[0]) else mesh.candidate
            lines += exposed(name, list(server.answers))
    return "\n".join(lines)


def exposed(revision, answers):
    """Names and labels as Knative documents them for its queue-proxy."""
    told, head = f'revision_name="{revision}"', "revision_app_request"
    codes = sorted({status for status, _ in answers})
    counts = {code: sum(status == code for status, _ in answers) for code in codes}
    within = {edge: sum(ms <= edge for _, ms in answers) for edge in (1, 5, 25, 100, 500, float("inf"))}
    buckets = {f"{edge:g}".replace("inf", "+Inf"): count for edge, count in within.items()} if answers else {}
    return [
        *(f'{head}_count{{{told},response_code="{code}"}} {count}' for code, count in counts.items()),
        *(f'{head}_latencies_bucket{{{told},le="{edge}"}} {count}' for edge, count in buckets.items()),
    ]


class Faults(http.server.BaseHTTPRequestHandler):
    """Stands before the API server and spoils a share of the answers, by a seeded draw."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.server.draw()
        if kind in (409, 429, 500):
            self.answer(kind, b'{"kind": "Status", "message": "injected"}')
            return
        connection = http.client.HTTPSConnection(*self.server.address, context=self.server.context, timeout=10)
        passed = ("Authorization", "Content-Type", "Accept")
        headers = {name: self.headers[name] for name in passed if name in self.headers}
        connection.request(self.command, self.path, data or None, headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if kind == "lost":  # the change was made; its answer is lost
            self.close_connection = True
            return
        self.answer(response.status, body)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Spoiled:
    """A client whose calls fail in a share of cases: 409, 429, 500, or made and not answered."""

    def __init__(self, url: str, server: http.server.ThreadingHTTPServer) -> None:
        self.kube = Kube(Access(url, token=ADMIN_TOKEN))
        self.server = server
        self.share = 0.0
        self.count = 0
        self.random = random.Random(4)

    def draw(self) -> int | str | None:
        if self.random.random() >= self.share:
            return None
        self.count += 1
        return self.random.choice((409, 429, 500, "lost"))


@pytest.fixture
def spoiled(seldon: Api) -> Iterator[Spoiled]:
    host, port = seldon.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=seldon.ca_file)
    with serving(Faults, address=(host, int(port)), context=context) as server:
        made = Spoiled(f"http://127.0.0.1:{server.server_address[1]}", server)
        server.draw = made.draw
        yield made
        made.kube.close()


@pytest.fixture
def operator(seldon: Api, namespace: str, mesh: Mesh) -> Iterator[Operator]:
    made = Operator(seldon, namespace, mesh)
    made.start()
    yield made
    made.stop()


OLD, NEW = "s3://models/sha256/" + "a" * 64, "s3://models/sha256/" + "b" * 64


@pytest.fixture
def make_target(namespace: str) -> Callable[..., Target]:
    """The targets of all drivers, as a file would have them."""

    def make(version: str, **more: object) -> Target:
        metrics = {
            "prometheus": "http://127.0.0.1:9",
            "series": "envoy",
            "scrape_seconds": 1,
            "champion": {"envoy_cluster_name": "stable|stable_probe"},
            "candidate": {"envoy_cluster_name": "candidate|candidate_then_stable"},
        }
        graph = {"name": "classifier", "implementation": "MLFLOW_SERVER", "modelUri": NEW}
        v1 = {
            "deployment": "fraud",
            "stable": "main",
            "candidate": {"name": "candidate", "replicas": 1, "graph": graph},
        }
        spec = {"storageUri": NEW, "requirements": ["sklearn"]}
        v2 = {"experiment": "fraud", "stable": "main", "candidate": {"name": "fraud-next", "spec": spec}}
        served = {"service": "fraud", "candidate": predictor(NEW)}
        sections = {"seldon-v1": v1, "seldon-v2": v2, "kserve": served}
        base = {"namespace": namespace, "metrics": metrics, "time_to_live_seconds": 60, "settle_seconds": 5}
        return Target.model_validate({**base, version: sections[version], **more})

    return make


def predictor(uri):
    model = {"modelFormat": {"name": "mlflow"}, "protocolVersion": "v2", "storageUri": uri}
    return {"minReplicas": 1, "model": model}


@pytest.fixture
def champion(kube: Kube, namespace: str) -> Callable[[str], None]:
    """Puts what serves today on the cluster: one predictor, or one Model, called `main`; or an InferenceService."""

    def put(version: str) -> None:
        if version == "seldon-v1":
            graph = {"name": "classifier", "implementation": "MLFLOW_SERVER", "modelUri": OLD}
            spec = {"predictors": [{"name": "main", "replicas": 1, "traffic": 100, "graph": graph}]}
            body = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment"}
            kube.create(deployments_in(namespace), {**body, "metadata": {"name": "fraud"}, "spec": spec})
        elif version == "kserve":
            body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
            spec, first = {"predictor": predictor(OLD)}, "fraud-predictor-00001"
            kube.create(services_in(namespace), {**body, "metadata": {"name": "fraud"}, "spec": spec})
            names = dict.fromkeys(("latestCreatedRevision", "latestReadyRevision", "latestRolledoutRevision"), first)
            part = {**names, "traffic": [{"revisionName": first, "percent": 100, "latestRevision": True}]}
            change = [{"op": "add", "path": "/status", "value": {"components": {"predictor": part}}}]
            kube.patch(services_in(namespace), "fraud", change, "status")
        else:
            body = {"apiVersion": "mlops.seldon.io/v1alpha1", "kind": "Model", "metadata": {"name": "main"}}
            spec = {"storageUri": OLD, "requirements": ["sklearn"]}
            kube.create(models_in(namespace), {**body, "spec": spec})

    return put


@pytest.fixture
def addressed(make_target: Callable[..., Target]) -> Callable[..., Target]:
    """A target whose candidate is addressed by its content."""

    def make(version: str, digest: str, **more: object) -> Target:
        document = make_target(version, **more).model_dump(mode="json", by_alias=True, exclude_none=True)
        return Target.model_validate(json.loads(json.dumps(document).replace(NEW, f"s3://models/sha256/{digest}")))

    return make


@dataclass(frozen=True)
class Objects:
    """What a driver leaves on the cluster, whichever it is."""

    kube: Kube
    namespace: str

    def uri(self, version: str) -> str:
        """What the stable arm is asked to serve."""
        if version == "seldon-v2":
            return self.kube.get(models_in(self.namespace), "main")["spec"]["storageUri"]
        if version == "kserve":
            return uri_of(self.kube.get(services_in(self.namespace), "fraud")["spec"]["predictor"])
        here = predictors(self.kube.get(deployments_in(self.namespace), "fraud"))
        return next(item["graph"]["modelUri"] for item in here if item["name"] == "main")

    def left(self, version: str) -> bool:
        """Whether anything can still lead to a candidate."""
        if version == "seldon-v2":
            return bool(self.kube.list(experiments_in(self.namespace)))
        if version == "kserve":
            return bool(self.kube.get(services_in(self.namespace), "fraud")["spec"]["predictor"].get(PERCENT))
        return len(predictors(self.kube.get(deployments_in(self.namespace), "fraud"))) > 1

    def lease(self, version: str) -> Resource:
        """The kind of the object `fraud`, which carries the lease."""
        kinds = {"seldon-v1": deployments_in, "seldon-v2": experiments_in, "kserve": services_in}
        return kinds[version](self.namespace)

    def home(self, version: str) -> dict[str, object]:
        """The object that holds the state."""
        if version == "seldon-v2":
            return self.kube.get(models_in(self.namespace), "main")
        return self.kube.get(self.lease(version), "fraud")


@pytest.fixture
def placed(kube, operator, champion, addressed, mesh, request) -> Callable[..., TargetCluster]:
    """Where a version's rollout happens, its champion there; where requests are not copied, with probes."""

    def place(version: str, digest: str, pace: Pace) -> TargetCluster:
        champion(version)
        if DRIVERS[version].mirrors:
            return TargetCluster(addressed(version, digest), kube, request.getfixturevalue("counters"), pace)
        more = {"metrics": request.getfixturevalue("knative"), "probes": mesh.probes(100)}
        return TargetCluster(addressed(version, digest, **more), kube, None, pace)

    return place


@pytest.fixture
def objects(kube: Kube, namespace: str) -> Objects:
    return Objects(kube, namespace)


CANDIDATES = {"seldon-v1": "candidate", "seldon-v2": "fraud-next", "kserve": NEW}


@pytest.fixture
def crash(operator: Operator) -> Callable[[str], None]:
    """Makes the candidate's pods not ready."""

    def now(version: str) -> None:
        operator.unready.add(CANDIDATES[version])
        operator.look()

    return now


PLAN = """
shadow_requests: 60
steps: [20, {weight: 100, requests: 80, max_seconds: 40}]
step_requests: 60
max_step_seconds: 40
rate: 150
clients: 6
"""


@pytest.fixture
def plan(tmp_path: Path) -> RolloutPlan:
    """The plan, as a user's file."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    return read_plan(tmp_path / "plan.yaml")
