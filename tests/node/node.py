"""A cluster of one node out of real parts: etcd, Kubernetes 1.20's five programs and containerd.

All of it lives in namespaces of its own (mounts, network, host name), which `tools/private-namespaces` makes, so that
no interface, rule, mount or setting of the machine changes. What differs from a cluster for people: names are answered
by thirty lines of Python, nothing enforces network policies, and the kubelet manages no hierarchy of control groups.
"""

import contextlib
import json
import os
import shutil
import signal
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

MARK = "HOLDFAST_PRIVATE_NAMESPACES"
"""Set by tools/private-namespaces: only then may this module touch interfaces and mounts."""
BINARIES = "HOLDFAST_NODE_BINARIES"
OWN = ("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kube-apiserver", "etcd")
PLUGINS = ("bridge", "host-local", "loopback")
ON_PATH = ("containerd", "ctr", "runc", "catatonit", "ip", "iptables", "mount", "openssl", "kubectl", "podman")
ADDRESS, NAME, TOKEN = "10.99.0.1", "n1", "admin-of-the-node"
REGISTRY = "registry.invalid"
OWN_RUN = Path("/run/holdfast-node")
SETTINGS = {
    "/proc/sys/vm/overcommit_memory": "1", "/proc/sys/vm/panic_on_oom": "0", "/proc/sys/kernel/panic": "10",
    "/proc/sys/kernel/panic_on_oops": "1", "/proc/sys/kernel/keys/root_maxkeys": "1000000",
    "/proc/sys/kernel/keys/root_maxbytes": "25000000",
}  # fmt: skip
"""What a kubelet insists on writing: files over these, in this mount namespace."""


@cache
def missing() -> str | None:
    """Why no node can be had here; None: it can."""
    if os.getuid() != 0:
        return "needs root"
    if os.environ.get(MARK) != "1":
        return "needs namespaces of its own: `make cluster-test` makes them"
    if absent := [name for name in ON_PATH if shutil.which(name) is None]:
        return f"needs {', '.join(absent)} on the PATH"
    folder = binaries()
    if absent := [name for name in (*OWN, *PLUGINS) if not (folder / name).is_file()]:
        return f"needs {', '.join(absent)} in {folder} (HOLDFAST_NODE_BINARIES; tools/node-binaries builds them)"
    done = subprocess.run(["podman", "info"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"needs a podman that works: {done.stderr[-200:]}"


def binaries() -> Path:
    """The folder with the node's programs."""
    return Path(os.environ.get(BINARIES, "/nowhere"))


class Node:
    """One node; `start` and `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._names: Names | None = None

    # --- up and down ----------------------------------------------------------------------------------------------

    def start(self, images: Sequence[str]) -> None:
        """Brings it up, ready, with images of podman's storage under the names of the manifests."""
        _private()
        self._write()
        self._containerd()
        self._images(images)
        self._control_plane()
        self._workers()
        wait(self._ready, 120, "a node that is ready")
        self._names = Names(self)
        self._names.start()

    def stop(self) -> None:
        """Ends every process of it, the containers' too."""
        if self._names is not None:
            self._names.stop()
        for process in reversed(self._processes[2:]):
            _end(process)
        with contextlib.suppress(subprocess.SubprocessError):
            tasks = self.ctr("tasks", "ls", "-q").split()
            for task in tasks:
                subprocess.run(self._ctr("tasks", "rm", "--force", task), capture_output=True, check=False, timeout=30)
        for process in reversed(self._processes[:2]):
            _end(process)
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounted if place.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "--lazy", place], check=False)

    def _run(self, name: str, *words: object) -> None:
        program = str(binaries() / name) if name in OWN else name
        log = (self.folder / f"{name}.log").open("wb")
        self._processes.append(subprocess.Popen([program, *map(str, words)], stdout=log, stderr=log, cwd=self.folder))

    def _write(self) -> None:
        place = self.folder
        (place / "containerd.toml").write_text(CONTAINERD.format(folder=place, plugins=binaries(), own=OWN_RUN))
        (place / "cni").mkdir()
        (place / "cni" / "10-node.conflist").write_text(json.dumps(network(place)))
        (place / "kubelet.json").write_text(json.dumps(KUBELET))
        (place / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n')
        (place / "kubeconfig").write_text(json.dumps(KUBECONFIG))
        subprocess.run(["openssl", "genrsa", "-out", place / "sa.key", "2048"], check=True, capture_output=True)

    def _containerd(self) -> None:
        self._run("containerd", "--config", self.folder / "containerd.toml")
        wait(lambda: bool(self.ctr("version")), 30, "containerd")

    def _control_plane(self) -> None:
        place, here = self.folder, "http://127.0.0.1:2379"
        self._run("etcd", f"--data-dir={place}/etcd", f"--listen-client-urls={here}", f"--advertise-client-urls={here}",
                  "--unsafe-no-fsync", "--log-level=error")  # fmt: skip
        self._run(
            "kube-apiserver", f"--etcd-servers={here}", f"--cert-dir={place}/certs", "--secure-port=6443",
            "--bind-address=0.0.0.0", f"--advertise-address={ADDRESS}", "--service-cluster-ip-range=10.0.0.0/24",
            f"--token-auth-file={place}/tokens.csv", "--authorization-mode=RBAC", "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={place}/sa.key",
            f"--service-account-signing-key-file={place}/sa.key", "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        wait(lambda: self.kubectl("get", "--raw=/readyz") == "ok", 90, "kube-apiserver")

    def _workers(self) -> None:
        place, config = self.folder, f"--kubeconfig={self.folder}/kubeconfig"
        self._run(
            "kube-controller-manager", config, f"--service-account-private-key-file={place}/sa.key",
            f"--root-ca-file={place}/certs/apiserver.crt", "--leader-elect=false",
            "--use-service-account-credentials=false",
        )  # fmt: skip
        self._run("kube-scheduler", config, "--leader-elect=false")
        self._run(
            "kube-proxy", config, "--proxy-mode=iptables", "--masquerade-all", f"--hostname-override={NAME}",
            "--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s", "--cluster-cidr=10.99.0.0/24",
        )  # fmt: skip
        self._run(
            "kubelet", config, f"--config={place}/kubelet.json", f"--root-dir={place}/kubelet",
            "--container-runtime=remote", f"--container-runtime-endpoint=unix://{place}/containerd.sock",
            f"--node-ip={ADDRESS}", f"--hostname-override={NAME}",
        )  # fmt: skip

    def _ready(self) -> bool:
        found = self.objects("nodes")
        conditions = [one for node in found for one in node["status"].get("conditions", ())]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _images(self, names: Sequence[str]) -> None:
        recipe = self.folder / "pause"
        recipe.mkdir()
        shutil.copy(shutil.which("catatonit") or "", recipe / "pause")
        (recipe / "Containerfile").write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause", "-P"]\n')
        subprocess.run(["podman", "build", "-q", "--network=none", "-t", "localhost/pause:1", recipe], check=True)
        save = ["podman", "save", "--multi-image-archive", "--format=docker-archive", "localhost/pause:1", *names]
        with subprocess.Popen(save, stdout=subprocess.PIPE) as saved:
            subprocess.run(
                self._ctr("images", "import", "-"), stdin=saved.stdout, check=True, stdout=subprocess.DEVNULL
            )
        for name in names:
            self.ctr("images", "tag", "--force", name, f"{REGISTRY}/{name.partition('/')[2]}")

    def _ctr(self, *words: str) -> list[str]:
        return ["ctr", f"--address={self.folder}/containerd.sock", "--namespace=k8s.io", *words]

    def ctr(self, *words: str) -> str:
        """What containerd's client prints; nothing where it fails."""
        return subprocess.run(self._ctr(*words), capture_output=True, text=True, check=False, timeout=120).stdout

    # --- the API --------------------------------------------------------------------------------------------------

    def kubectl(self, *words: str, body: object = None) -> str:
        """What kubectl prints; empty where it fails."""
        done = self.call(*words, body=body)
        return done.stdout if done.returncode == 0 else ""

    def call(self, *words: str, body: object = None) -> "subprocess.CompletedProcess[str]":
        """Runs kubectl as the admin of the node."""
        given = None if body is None else json.dumps(body)
        command = ["kubectl", f"--kubeconfig={self.folder}/kubeconfig", *words]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=120)

    def apply(self, *bodies: Mapping[str, Any]) -> None:
        """Applies objects.

        Raises:
            AssertionError: the server refuses one.
        """
        done = self.call(
            "apply", "--validate=false", "-f", "-", body={"apiVersion": "v1", "kind": "List", "items": bodies}
        )
        assert done.returncode == 0, done.stderr

    def objects(self, kind: str, namespace: str = "") -> list[dict[str, Any]]:
        """All objects of a kind."""
        where = [f"--namespace={namespace}"] if namespace else ["--all-namespaces"]
        found = self.kubectl("get", kind, "--output=json", *where)
        return list(json.loads(found)["items"]) if found else []

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """One object; empty where there is none."""
        found = self.kubectl("get", kind, name, f"--namespace={namespace}", "--output=json")
        return dict(json.loads(found)) if found else {}

    def log(self, pod: str, namespace: str, container: str = "") -> str:
        """What a pod's container wrote."""
        return self.kubectl(
            "logs", pod, f"--namespace={namespace}", *([f"--container={container}"] if container else [])
        )

    def ended(self, pod: str, namespace: str, seconds: float = 300) -> tuple[int, str]:
        """Waits until a pod has ended; its exit code and its log."""
        wait(lambda: phase(self.get("pod", pod, namespace)) in ("Succeeded", "Failed"), seconds, f"the end of {pod}",
             lambda: self.about(pod, namespace))  # fmt: skip
        (status,) = self.get("pod", pod, namespace)["status"]["containerStatuses"]
        return status["state"]["terminated"]["exitCode"], self.log(pod, namespace)

    def about(self, pod: str, namespace: str) -> str:
        """What people would look at where a pod does not come up."""
        return (
            self.kubectl("describe", "pod", pod, f"--namespace={namespace}")[-3000:] + self.log(pod, namespace)[-3000:]
        )


def phase(pod: Mapping[str, Any]) -> str:
    """Pending, Running, Succeeded, Failed; empty where there is no pod."""
    return str(pod.get("status", {}).get("phase", ""))


def wait(done: Callable[[], bool], seconds: float, what: str, why: Callable[[], str] = str) -> None:
    """Waits for something.

    Raises:
        AssertionError: it did not come in time.
    """
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"expected {what} within {seconds:.0f} s; {why()}"
        time.sleep(0.5)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


# --- what is private -------------------------------------------------------------------------------------------------


def _private() -> None:
    """Interfaces and mounts of these namespaces."""
    assert os.environ.get(MARK) == "1"
    for words in (
        "link set lo up", "link add holdfast0 type bridge", f"address add {ADDRESS}/24 dev holdfast0",
        "link set holdfast0 up", "route add default dev holdfast0",
    ):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for folder in ("/run", "/var/log"):  # what is in them is hidden here, and stays where it is
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    OWN_RUN.mkdir()
    for number, (setting, value) in enumerate(SETTINGS.items()):
        file = OWN_RUN / str(number)
        file.write_text(value)
        subprocess.run(["mount", "--bind", file, setting], check=True)


def named(hosts: Mapping[str, str]) -> None:
    """Gives addresses names, for this process and its children in these namespaces."""
    assert os.environ.get(MARK) == "1"
    file = OWN_RUN / "hosts"
    file.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in hosts.items()))
    subprocess.run(["mount", "--bind", file, "/etc/hosts"], check=True)


class Names(socketserver.ThreadingUDPServer):
    """Answers for the names of Services, as a cluster's DNS does; knows nothing else."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, node: Node) -> None:
        super().__init__((ADDRESS, 53), _Question)
        self.node = node

    def start(self) -> None:
        """Begins to answer."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Ends."""
        self.shutdown()
        self.server_close()

    def address(self, name: str) -> str | None:
        """Of a Service: `NAME.NAMESPACE.svc.cluster.local`."""
        service, _, rest = name.rstrip(".").partition(".")
        namespace, _, domain = rest.partition(".")
        if domain != "svc.cluster.local":
            return None
        found = self.node.get("service", service, namespace)
        return str(found["spec"]["clusterIP"]) if found else None


class _Question(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        end = data.index(b"\0", 12) + 5
        kind = struct.unpack("!H", data[end - 4 : end - 2])[0]
        found = self.server.address(".".join(_labels(data)))  # type: ignore[attr-defined]
        answers = int(found is not None and kind == 1)
        head = data[:2] + struct.pack("!HHHHH", 0x8580 | (0 if found else 3), 1, answers, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + bytes(map(int, (found or "0.0.0.0").split(".")))
        sock.sendto(head + data[12:end] + record * answers, self.client_address)


def _labels(data: bytes) -> Iterator[str]:
    at = 12
    while size := data[at]:
        yield data[at + 1 : at + 1 + size].decode().lower()
        at += size + 1


# --- settings --------------------------------------------------------------------------------------------------------

CONTAINERD = """
version = 2
root = "{folder}/containerd"
state = "{own}/containerd"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def network(folder: Path) -> dict[str, Any]:
    """Pods on one bridge; the node is their gateway."""
    ranges = [[{"subnet": "10.99.0.0/24", "rangeStart": "10.99.0.10", "gateway": ADDRESS}]]
    addresses = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{folder}/leases",
    }
    bridge = {"type": "bridge", "bridge": "holdfast0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": "node", "plugins": [bridge]}


KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "failSwapOn": False,
    "makeIPTablesUtilChains": False,
    "imageGCHighThresholdPercent": 100,
    "evictionHard": {"memory.available": "100Mi"},
    "oomScoreAdj": 0,
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "clusterDNS": [ADDRESS],
    "clusterDomain": "cluster.local",
    "resolvConf": "",
    "hairpinMode": "none",
}
SERVER = {"server": f"https://{ADDRESS}:6443", "certificate-authority": "certs/apiserver.crt"}
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "node",
    "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}],
    "clusters": [
        {
            "name": "node",
            "cluster": {"server": f"https://{ADDRESS}:6443", "certificate-authority": "certs/apiserver.crt"},
        }
    ],
    "users": [{"name": "admin", "user": {"token": TOKEN}}],
}
