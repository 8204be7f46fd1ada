"""Asks a Seldon wrapper as its clients do; run by the Python of the environment `seldon`.

`ask REST GRPC ROWS.npy`: prints what REST and gRPC on loopback answered.
`alone REST GRPC ROWS.npy COMMAND...`: in a network namespace of its own, starts COMMAND, asks it, tells it to end.
"""

import contextlib
import fcntl
import gzip
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
from google.protobuf import json_format
from seldon_core.proto import prediction_pb2, prediction_pb2_grpc

SECONDS = 60
ROW = np.full((1, 1, 8, 8), 0.5).tolist()
UNREADABLE = (
    b"[" * 100_000,
    b"{",
    b"",
    b'{"data": "\xff"}',
    {"data": None},
    {"data": 5},
    {"data": {"ndarray": [[1], [1, 2]]}},
    {"data": {"tensor": {"values": [1]}}},
    {"data": {"tensor": {"shape": [2**62, 2**62], "values": [1]}}},
    {"data": {"tensor": {"shape": [1.5], "values": [1]}}},
    {"data": {"tftensor": {}}},
    {"data": {"ndarray": ROW}, "meta": 5},
    {"data": {"ndarray": ROW}, "meta": {"tags": 5}},
)
"""What a client may get wrong about the request itself."""
FLAT = np.full(64, 0.5).tolist()
MISREAD = {
    "a negative size": {"data": {"tensor": {"shape": [-1, 1, 8, 8], "values": FLAT}}},
    "a size with a point": {"data": {"tensor": {"shape": [1.0, 1, 8, 8], "values": FLAT}}},
    "true as a size": {"data": {"tensor": {"shape": [True, 1, 8, 8], "values": FLAT}}},
    "too few values": {"data": {"tensor": {"shape": [1, 1, 8, 8], "values": FLAT[1:]}}},
    "true among values": {"data": {"tensor": {"shape": [1, 1, 8, 8], "values": [True, *FLAT[1:]]}}},
    "strings as values": {"data": {"tensor": {"shape": [1, 1, 8, 8], "values": [str(v) for v in FLAT]}}},
    "null among values": {"data": {"tensor": {"shape": [1, 1, 8, 8], "values": [None, *FLAT[1:]]}}},
    "true in lists": {"data": {"ndarray": [[[[True, *FLAT[1:8]], *ROW[0][0][1:]]]]}},
    "a string in lists": {"data": {"ndarray": [[[["0.5", *FLAT[1:8]], *ROW[0][0][1:]]]]}},
    "no values": {"data": {"tensor": {"shape": [0, 1, 8, 8], "values": []}}},
    "no rows": {"data": {"ndarray": []}},
    "two kinds of data": {"data": {"ndarray": ROW, "tensor": {"shape": [1, 1, 8, 8], "values": FLAT}}},
}
"""What the wrapper alone would read as other numbers, or as none."""
MISREAD_MESSAGES = {
    "a negative size": ((-1, 1, 8, 8), FLAT),
    "too few values": ((1, 1, 8, 8), FLAT[1:]),
    "more values than the shape": ((1, 1, 8, 8), [0.25, *FLAT]),
    "no shape": ((), FLAT),
    "a product of sizes beyond 2^64": ((2**30, 2**30, 8, 8), FLAT),
}
"""Shapes and values of gRPC tensors that do not belong together."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def rest(port, body):
    """Status and JSON answer."""
    url, headers = f"http://127.0.0.1:{port}/api/v1.0/predictions", {"content-type": "application/json"}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def rest_gzip(port, body):
    """Status of a body that is packed."""
    data, headers = gzip.compress(json.dumps(body).encode()), {"content-type": "application/json"}
    url = f"http://127.0.0.1:{port}/api/v1.0/predictions"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers | {"content-encoding": "gzip"})
        ) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def over_grpc(port, x):
    """Answers as plain values, or what was wrong."""
    return message_over_grpc(port, {"tensor": {"shape": list(x.shape), "values": x.ravel().tolist()}})


def message_over_grpc(port, data):
    """The same for the fields of a message's data."""
    request = json_format.ParseDict({"data": data, "meta": {"puid": "order-17"}}, prediction_pb2.SeldonMessage())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            found = prediction_pb2_grpc.SeldonStub(channel).Predict(request, timeout=20, wait_for_ready=True)
        except grpc.RpcError as error:
            return {"error": error.details(), "code": error.code().name}
    return {
        "puid": found.meta.puid,
        "names": list(found.data.names),
        "values": list(found.data.tensor.values),
        "shape": list(found.data.tensor.shape),
        "labels": [int(label) for label in found.meta.tags["labels"].list_value],
        "model": found.meta.tags["model"].string_value,
    }


def ask(rest_port, grpc_port, x):
    """Everything that a test wants to know."""
    with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/api/v1.0/health/status") as response:
        health = response.status
    return {
        "ndarray": rest(rest_port, {"data": {"ndarray": x.tolist()}}),
        "tensor": rest(rest_port, {"data": {"tensor": {"shape": list(x.shape), "values": x.ravel().tolist()}}}),
        "wrong": rest(rest_port, {"data": {"ndarray": [[9.0]]}}),
        "text": rest(rest_port, {"strData": "hello"}),
        "puid": rest(rest_port, {"data": {"ndarray": x.tolist()}, "meta": {"puid": "order-17"}}),
        "gzip": rest_gzip(rest_port, {"data": {"ndarray": x.tolist()}}),
        "misread": {name: rest(rest_port, body) for name, body in MISREAD.items()},
        "misread_grpc": {
            **{
                name: message_over_grpc(grpc_port, {"tensor": {"shape": list(shape), "values": values}})
                for name, (shape, values) in MISREAD_MESSAGES.items()
            },
            "true in lists": message_over_grpc(grpc_port, MISREAD["true in lists"]["data"]),
            "null in lists": message_over_grpc(grpc_port, {"ndarray": [[[[None] * 8] * 8]]}),
        },
        "unreadable": [rest(rest_port, body) for body in UNREADABLE],
        "grpc": over_grpc(grpc_port, x),
        "grpc_wrong": over_grpc(grpc_port, x + 9),
        "health": health,
    }


def wait(rest_port, process):
    """Returns when REST answers or the process has ended."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/health/ping"):
            return
        time.sleep(0.1)


def alone(rest_port, grpc_port, x, command):
    """Starts, asks, ends; SIGTERM goes to the whole process group, because the wrapper alone would wait for ever."""
    assert sorted(name for _, name in socket.if_nameindex()) == ["lo"], "expected a network namespace of its own"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    answers = {}
    try:
        wait(rest_port, process)
        if process.poll() is None:
            answers = ask(rest_port, grpc_port, x)
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(SECONDS)
        left = gone(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said = process.stderr.read()
    return {**answers, "code": process.returncode, "said": said.decode(), "left": left}


def gone(leader):
    """Processes of the session that are still there when its leader has been gone for five seconds: none."""
    deadline = time.monotonic() + 5
    while (left := session(leader)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def session(leader):
    """Living processes of the session that `leader` began."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, sid = path.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == leader and state != "Z":
                found.append(path.parent.name)
    return found


if __name__ == "__main__":
    mode, *ports = sys.argv[1:4]
    rows = np.load(sys.argv[4], allow_pickle=False)
    numbers = [int(port) for port in ports]
    sys.stdout.write(json.dumps(ask(*numbers, rows) if mode == "ask" else alone(*numbers, rows, sys.argv[5:])))
