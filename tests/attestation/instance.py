"""A private sigstore instance on loopback: Fulcio, Rekor v1 and v2, a timestamp authority and who gives out tokens.

The servers' side of the protocols, as sigstore-python's own client speaks them; nothing of Holdfast is used.
"""

import base64
import hashlib
import json
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

jwt = pytest.importorskip("jwt", reason="it comes with sigstore (group foreign)")
GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "acme/fraud/.github/workflows/train.yml@refs/heads/main"
SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER, ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
LIFE = timedelta(minutes=10)
Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def der(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def log_id(key: Key) -> bytes:
    return hashlib.sha256(der(key)).digest()


def sign(key: Key, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


@dataclass
class Instance:
    """Keys and logs of one instance; `url` is where it answers."""

    url: str = ""
    root: Key = field(default_factory=new_key)
    provider: Key = field(default_factory=new_key)
    ct: Key = field(default_factory=new_key)
    rekor: Key = field(default_factory=new_key)
    stamper: Key = field(default_factory=new_key)
    clock: timedelta = timedelta()
    """How far the certificates' times are from those of the log."""
    certificates: list[x509.Certificate] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)
    refuses: bool = False
    version: int = 1
    """Of the log."""
    person: str = "ana@example.org"
    """Who logs in with a browser."""

    def __post_init__(self) -> None:
        self.ca = authority("root", self.root)
        self.tsa = leaf_of_tsa(self.stamper, self.ca, self.root)

    def token(self, *, life: timedelta = LIFE, issuer: str = GITHUB, **claims: Any) -> str:
        """An identity token, as a job of the workflow or (with other claims) someone else gets it."""
        now = datetime.now(UTC)
        known = {"aud": "sigstore", "sub": "repo:acme/fraud:ref:refs/heads/main", "job_workflow_ref": WORKFLOW}
        times = {"iss": issuer, "iat": now + min(life, timedelta()), "exp": now + life}
        return jwt.encode({**known, **times, **claims}, self.provider, "ES256")

    def trusted_root(self) -> dict[str, Any]:
        start = {"start": "2020-01-01T00:00:00Z"}

        def log(key: Key, name: str) -> dict[str, Any]:
            public = {"rawBytes": b64(der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": start}
            return {
                "baseUrl": f"{self.url}/{name}", "hashAlgorithm": "SHA2_256", "publicKey": public,
                "logId": {"keyId": b64(log_id(key))},
            }  # fmt: skip

        def ca(*chain: x509.Certificate) -> dict[str, Any]:
            certificates = [{"rawBytes": b64(one.public_bytes(Encoding.DER))} for one in chain]
            subject = {"organization": "test", "commonName": "test"}
            return {"subject": subject, "certChain": {"certificates": certificates}, "validFor": start}

        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.rekor, "rekor")], "ctlogs": [log(self.ct, "ct")],
            "certificateAuthorities": [ca(self.ca)], "timestampAuthorities": [ca(self.tsa, self.ca)],
        }  # fmt: skip

    def trust_config(self) -> dict[str, Any]:
        def at(path: str, version: int = 1) -> list[dict[str, Any]]:
            since = {"start": "2020-01-01T00:00:00Z"}
            return [{"url": f"{self.url}{path}", "majorApiVersion": version, "validFor": since, "operator": "test"}]

        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root(),
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": at(""), "oidcUrls": at("/oidc"), "rekorTlogUrls": at("", self.version), "tsaUrls": at("/tsa"),
                "rekorTlogConfig": {"selector": "ANY"}, "tsaConfig": {"selector": "ANY"},
            },
        }  # fmt: skip

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The files of a client: trust config and trusted root."""
        config, root = folder / "trust_config.json", folder / "trusted_root.json"
        config.write_text(json.dumps(self.trust_config()))
        root.write_text(json.dumps(self.trusted_root()))
        return config, root

    def certify(self, asked: dict[str, Any], token: str) -> dict[str, Any]:
        """Fulcio's answer to a signing request."""
        claims = jwt.decode(token, self.provider.public_key(), ["ES256"], audience="sigstore")
        request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"]))
        assert request.is_signature_valid
        made = self.leaf(request.public_key(), san_of(claims), claims["iss"])
        self.certificates.append(made)
        chain = [one.public_bytes(Encoding.PEM).decode() for one in (made, self.ca)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def leaf(self, public: Any, san: x509.GeneralName, issuer: str) -> x509.Certificate:
        """A certificate with the log's signed timestamp over all of it but the timestamp itself (RFC 6962)."""
        now = datetime.now(UTC).replace(microsecond=0) + self.clock
        text = issuer.encode()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.ca.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + LIFE)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([san]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ISSUER, text), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER_V2, bytes([12, len(text)]) + text), critical=False)
        )
        tbs = builder.sign(self.root, SHA256()).tbs_certificate_bytes
        stamps = octets(self.scts(tbs, now))
        return builder.add_extension(x509.UnrecognizedExtension(SCTS, stamps), critical=False).sign(self.root, SHA256())

    def scts(self, tbs: bytes, at: datetime) -> bytes:
        """The list of one signed certificate timestamp, as TLS writes it."""
        milliseconds = int(at.timestamp() * 1000)
        entry = log_id(self.root) + len(tbs).to_bytes(3, "big") + tbs
        signature = sign(self.ct, struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + b"\0\0")
        one = b"\0" + log_id(self.ct) + struct.pack("!QH", milliseconds, 0)
        one += struct.pack("!BBH", 4, 3, len(signature)) + signature
        return struct.pack("!HH", len(one) + 2, len(one)) + one

    def log(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Rekor's answer to a proposed entry: its place in the tree, and what the log promises about it."""
        body = entry_body(proposed)
        index, proof = self.added(body)
        now = int(datetime.now(UTC).timestamp())
        entry = {"body": b64(body), "integratedTime": now, "logID": log_id(self.rekor).hex(), "logIndex": index}
        canonical = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        promise = {"inclusionProof": proof, "signedEntryTimestamp": b64(sign(self.rekor, canonical))}
        return {tree_hash([body]).hex(): {**entry, "verification": promise}}

    def log_v2(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Rekor v2's answer: no time of its own, and no promise but the place in the tree."""
        body = entry_body_v2(proposed["hashedRekordRequestV002"])
        index, proof = self.added(body)
        inclusion = {
            "logIndex": str(index),
            "treeSize": str(proof["treeSize"]),
            "rootHash": b64(bytes.fromhex(proof["rootHash"])),
            "hashes": [b64(bytes.fromhex(one)) for one in proof["hashes"]],
            "checkpoint": {"envelope": proof["checkpoint"]},
        }
        return {
            "logIndex": str(index),
            "logId": {"keyId": b64(log_id(self.rekor))},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "integratedTime": "0",
            "inclusionPromise": None,
            "inclusionProof": inclusion,
            "canonicalizedBody": b64(body),
        }

    def added(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """The index of a new leaf, and the proof that the tree under the signed checkpoint has it."""
        self.leaves.append(body)
        index, root = len(self.leaves) - 1, tree_hash(self.leaves)
        note = f"rekor.test - 1\n{len(self.leaves)}\n{b64(root)}\n"
        signed = b64(log_id(self.rekor)[:4] + sign(self.rekor, note.encode()))
        hashes = [one.hex() for one in path_of(index, self.leaves)]
        proof = {"logIndex": index, "treeSize": len(self.leaves), "rootHash": root.hex(), "hashes": hashes}
        return index, {**proof, "checkpoint": f"{note}\n— rekor.test {signed}\n"}

    def logged_in(self, asked: dict[str, list[str]]) -> str:
        """Where the browser goes next: back, with a code for the one who asked (RFC 7636)."""
        self.codes["once"] = asked["code_challenge"][0]
        return f"{asked['redirect_uri'][0]}?{urlencode({'code': 'once', 'state': asked['state'][0]})}"

    def of_person(self, asked: dict[str, list[str]]) -> str:
        """The token of the person who logged in, for who holds the code's verifier."""
        digest = hashlib.sha256(asked["code_verifier"][0].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == self.codes.pop(asked["code"][0])
        return self.token(email=self.person, issuer=f"{self.url}/oidc")

    def timestamp(self, query: bytes) -> bytes:
        """An RFC 3161 answer, by OpenSSL."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "query").write_bytes(query)
            (folder / "cert.pem").write_bytes(self.tsa.public_bytes(Encoding.PEM))
            private = self.stamper.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (folder / "key.pem").write_bytes(private)
            (folder / "conf").write_text(_TSA)
            command = ["openssl", "ts", "-reply", "-config", "conf", "-queryfile", "query", "-out", "answer"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            return (folder / "answer").read_bytes()


_TSA = """[tsa]
default_tsa = one
[one]
serial = serial
signer_cert = cert.pem
signer_key = key.pem
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
"""


def san_of(claims: dict[str, Any]) -> x509.GeneralName:
    """Who the certificate names: as Fulcio does for GitHub, for people, and for others."""
    if "email" in claims:
        return x509.RFC822Name(claims["email"])
    if claims["iss"] == GITHUB:
        return x509.UniformResourceIdentifier(f"https://github.com/{claims['job_workflow_ref']}")
    return x509.UniformResourceIdentifier(claims["sub"])


def entry_body(proposed: dict[str, Any]) -> bytes:
    """The canonical form of a `dsse` entry 0.0.1, after its signature was verified."""
    content = proposed["spec"]["proposedContent"]
    envelope, (verifier,) = json.loads(content["envelope"]), content["verifiers"]
    payload, signature = base64.b64decode(envelope["payload"]), envelope["signatures"][0]["sig"]
    kind = envelope["payloadType"].encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(verifier))
    certificate.public_key().verify(base64.b64decode(signature), message, ec.ECDSA(SHA256()))  # type: ignore
    digests = {"envelopeHash": content["envelope"].encode(), "payloadHash": payload}
    hashes = {key: {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()} for key, data in digests.items()}
    spec = {**hashes, "signatures": [{"signature": signature, "verifier": verifier}]}
    entry = {"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def entry_body_v2(request: dict[str, Any]) -> bytes:
    """The canonical form of a `hashedrekord` entry 0.0.2, after its signature was verified."""
    signature = request["signature"]
    certificate = x509.load_der_x509_certificate(base64.b64decode(signature["verifier"]["x509Certificate"]["rawBytes"]))
    digest = base64.b64decode(request["digest"])
    certificate.public_key().verify(base64.b64decode(signature["content"]), digest, ec.ECDSA(Prehashed(SHA256())))  # type: ignore
    spec = {"data": {"algorithm": "SHA2_256", "digest": request["digest"]}, "signature": signature}
    entry = {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": spec}}
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\1" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def path_of(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*path_of(index, leaves[:k]), tree_hash(leaves[k:])]
    return [*path_of(index - k, leaves[k:]), tree_hash(leaves[:k])]


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    return 1 << (n - 1).bit_length() - 1


def octets(data: bytes) -> bytes:
    """A DER octet string."""
    length = bytes([len(data)]) if len(data) < 128 else bytes([0x81, len(data)])
    return b"\x04" + length + data


def key_usage(**given: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def authority(name: str, key: Key) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        _certificate(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def leaf_of_tsa(key: Key, ca: x509.Certificate, root: Key) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "timestamps")])
    return (
        _certificate(subject, ca.subject, key.public_key())
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        .sign(root, SHA256())
    )


def _certificate(subject: x509.Name, issuer: x509.Name, public: Any) -> x509.CertificateBuilder:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36500))
    )


@contextmanager
def serving(instance: Instance) -> Iterator[Instance]:
    """The instance on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if instance.refuses:
                return self.answer({"code": 503, "message": "not today"}, 503)
            if self.path == "/api/v2/signingCert":
                return self.certify(json.loads(body))
            if self.path == "/tsa":
                return self.send(instance.timestamp(body), 200)
            if self.path == "/oidc/token":
                return self.answer({"access_token": instance.of_person(parse_qs(body.decode()))}, 200)
            log = instance.log_v2 if self.path == "/api/v2/log/entries" else instance.log
            return self.answer(log(json.loads(body)), 201)

        def do_GET(self) -> None:
            """Where a GitHub job asks for its token, and where a browser goes."""
            path = urlsplit(self.path)
            if path.path == "/oidc/.well-known/openid-configuration":
                places = {f"{name}_endpoint": f"{instance.url}/oidc/{name}" for name in ("authorization", "token")}
                self.answer(places, 200)
            elif path.path == "/oidc/authorization":
                self.send_response(302)
                self.send_header("Location", instance.logged_in(parse_qs(path.query)))
                self.end_headers()
            else:
                self.answer({"value": instance.token()}, 200)

        def certify(self, asked: dict[str, Any]) -> None:
            try:
                self.answer(instance.certify(asked, self.headers["Authorization"].removeprefix("Bearer ")), 200)
            except jwt.InvalidTokenError as error:
                self.answer({"code": 16, "message": str(error)}, 401)

        def answer(self, value: dict[str, Any], status: int) -> None:
            self.send(json.dumps(value).encode(), status)

        def send(self, data: bytes, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield instance
    finally:
        server.shutdown()
        server.server_close()
