"""Releases that are fetched over TLS, by a program that trusts what the system trusts."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.coordinator.releases.builder import small_release
from tests.coordinator.releases.file_server import serving

# Which certificates are trusted is read once, when the library for HTTP is imported.
_FETCH = """
import sys
from pathlib import Path
from agent.copies.networks import AllowedNetworks
from coordinator.releases.http_repository import HttpRepository
from depot.errors import Unreachable
from tests.coordinator.releases.opening import facts_of

url, spool, root = sys.argv[1:]
repository = HttpRepository(url, AllowedNetworks.of(["127.0.0.0/8"]), Path(spool))
try:
    print(facts_of(repository, Path(root).read_bytes()).file_name)
except Unreachable as error:
    print("unreachable:", error)
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "releases")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


def fetched(certificate: Path, environ: dict[str, str]) -> tuple[str, str]:
    """The URL of a release's server, and what a program says that fetches from it."""
    release = small_release()
    root = certificate.with_name("root.json")
    root.write_bytes(release.trusted)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(release.publish(), prefix="/repo/", tls=tls) as server:
        ended = subprocess.run(
            [sys.executable, "-c", _FETCH, server.url, certificate.parent, root],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return server.url.rstrip("/"), ended.stdout.strip()


def test_a_release_is_fetched_over_tls_from_a_server_whose_certificate_is_trusted(
    certificate: Path,
) -> None:
    url, said = fetched(certificate, {"SSL_CERT_FILE": str(certificate)})
    assert said == url


def test_a_server_whose_certificate_nobody_trusts_is_not_read_from(certificate: Path) -> None:
    _, said = fetched(certificate, {})
    assert said.startswith("unreachable:")
    assert "certificate" in said.lower()
