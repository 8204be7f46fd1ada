"""Servers for clients of the Kubernetes API: one that knows tokens, with or without TLS; and kubeconfigs."""

import datetime
import http.server
import ipaddress
import json
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.fixture
def write_kubeconfig(tmp_path):
    """Writes a kubeconfig of one user and one cluster; returns its path."""

    def write(user, cluster=None):
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://api:6443", **(cluster or {})}}],
            "users": [{"name": "u", "user": user}],
        }
        path = tmp_path / "config"
        path.write_text(json.dumps(config))
        return path

    return write


class Server(http.server.ThreadingHTTPServer):
    """Answers 200 to the tokens it knows, 401 to all others; keeps what it saw."""

    daemon_threads = True

    def __init__(self, known=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.known, self.tokens, self.certificates = known, [], []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.server.tokens.append(token)
        if isinstance(self.connection, ssl.SSLSocket):
            self.server.certificates.append((self.connection.getpeercert() or {}).get("serialNumber"))
        refused = self.server.known is not None and token not in self.server.known
        data = json.dumps({"message": "Unauthorized"} if refused else {"metadata": {}}).encode()
        self.send_response(401 if refused else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PATCH = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """Starts a server, with TLS where a context is given; returns it."""
    started = []

    def start(known=None, context=None):
        server = Server(known)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


class Authority:
    """A certificate authority of our own, for server and clients."""

    def __init__(self, folder):
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("ca", self.key.public_key(), ca=True)
        self.file = folder / "ca.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name, host="127.0.0.1"):
        """A certificate for a host and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(name, key.public_key(), host)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()

    def context(self, host="127.0.0.1", ask=True):
        """TLS of a server whose certificate is for `host`; it can `ask` clients for a certificate of this authority."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for name, text in zip(("server.crt", "server.key"), self.issue("server", host), strict=True):
            (self.folder / name).write_text(text)
        made.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        made.load_verify_locations(self.file)
        made.verify_mode = ssl.CERT_REQUIRED if ask else ssl.CERT_NONE
        return made

    def _sign(self, name, public, host="127.0.0.1", *, ca=False):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = subject if ca else self.certificate.subject
        now = datetime.datetime.now(datetime.UTC)
        numeric = host.replace(".", "").isdigit()
        address = x509.IPAddress(ipaddress.ip_address(host)) if numeric else x509.DNSName(host)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self.key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path):
    """A certificate authority whose certificate is `ca.crt` in the folder of the test's kubeconfig."""
    return Authority(tmp_path)
