"""TLS: what is spoken, and certificates that cannot be used."""

import ssl
from pathlib import Path

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from serving import (
    Client,
    Endless,
    make_sample_app,
    served,
)

from ccstore.errors import ConfigError
from ccstore.server.hosting import tls_context
from ccstore.server.http import App


@pytest.fixture
def endless() -> Endless:
    return Endless()


@pytest.fixture
def app(endless: Endless) -> App:
    return make_sample_app(endless)


@pytest.fixture(name="certificate")
def make_certificate(tmp_path: Path) -> tuple[trustme.CA, str, str]:
    """An authority, and the files of a certificate and its key."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(cert, append=True)
    leaf.private_key_pem.write_to_path(key)
    return authority, str(cert), str(key)


async def tls_client(port: int, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def test_requests_over_tls(app: App, certificate: tuple[trustme.CA, str, str]) -> None:
    """With a certificate the server speaks TLS, large bodies included, and reports https."""
    authority, cert, key = certificate
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with served(app, tls=tls_context(cert, key)) as port, await tls_client(port, context) as stream:
        client = Client(stream)
        assert (await client.request("POST", "/count", body=bytes(900_000))).body == b"900000"
        assert (await client.request("GET", "/hello", [("Connection", "close")])).status == 200
        await client.wait_closed()


@pytest.mark.parametrize(
    ("suite", "agreed"), [("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES256-GCM-SHA384", False)]
)
async def test_suites_of_tls_1_2(
    app: App, certificate: tuple[trustme.CA, str, str], suite: str, agreed: bool
) -> None:
    """TLS 1.2 is spoken with the documented suites and with no other."""
    authority, cert, key = certificate
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    async with served(app, tls=tls_context(cert, key)) as port:
        try:
            stream = await tls_client(port, context)
        except trio.BrokenResourceError:
            assert not agreed
        else:
            assert agreed
            assert stream.cipher()[0] == suite  # type: ignore[index]
            await trio.aclose_forcefully(stream)


def test_oldest_version_of_tls(certificate: tuple[trustme.CA, str, str]) -> None:
    """Nothing older than TLS 1.2 is spoken."""
    assert tls_context(*certificate[1:]).minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("fault", ["missing", "not PEM", "other key", "encrypted key"])
def test_certificate_that_cannot_be_used(certificate: tuple[trustme.CA, str, str], fault: str) -> None:
    """A certificate that cannot be used is one line with the key of the configuration."""
    _, cert, key = certificate
    match fault:
        case "missing":
            Path(cert).unlink()
        case "not PEM":
            Path(cert).write_text("nonsense")
        case "other key":
            trustme.CA().issue_cert("x").private_key_pem.write_to_path(key)
        case "encrypted key":
            password = serialization.BestAvailableEncryption(b"secret")
            pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password
            )
            Path(key).write_bytes(pem)
    with pytest.raises(ConfigError) as error:
        tls_context(cert, key)
    assert str(error.value).startswith("main.https-cert-file: cannot use ")
    assert "\n" not in str(error.value)
