"""Every way to sign in and to encrypt, each against a real nats-server."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nats_broker import Broker, open_broker
from nats_fake import FakePeer, open_fake, open_receiver

from ccstore.config import NatsConfig, NatsTlsConfig
from ccstore.errors import ConfigError
from ccstore.server.nats import open_client, receive
from ccstore.server.nats_statistics import NatsStatistics
from ccstore.wire.nats_auth import encode_seed, public_key

pytestmark = pytest.mark.timeout(60)

SEED = bytes(range(32))
OPERATOR, ACCOUNT = 14 << 3, 0  # the first letters of public keys: O, A


async def assert_messages_pass(config: NatsConfig) -> None:
    """Connect twice with `config`, and send a message from one to the other."""
    async with open_receiver(config, "a") as receiver:
        await receiver.log.wait("subscribed")
        async with open_client(config) as client:
            await client.publish("a", b"x" * 200_000)
            await client.flush()
        assert await receiver.store.wait(1) == [b"x" * 200_000]


async def refusal_of(config: NatsConfig) -> str:
    """Return why we cannot connect."""
    async with open_receiver(config, "a") as receiver:
        line = await receiver.log.wait("cannot connect")
        assert receiver.statistics.connects == 0
        assert receiver.statistics.last_error in line
        return line


async def test_user_and_password(tmp_path: Path) -> None:
    """User and password of the configuration, and a wrong one is named as the reason."""
    async with open_broker(tmp_path, "authorization { user: u, password: secret }\n") as broker:
        await assert_messages_pass(NatsConfig(address=broker.url, username="u", password="secret"))
        line = await refusal_of(NatsConfig(address=broker.url, username="u", password="wrong"))
        assert "Authorization Violation" in line
        assert "wrong" not in line


async def test_user_and_password_in_the_address(tmp_path: Path) -> None:
    """They win over those of the configuration, and no log line shows them."""
    async with open_broker(tmp_path, 'authorization { user: u, password: "p@ss" }\n') as broker:
        config = NatsConfig(address=f"nats://u:p%40ss@127.0.0.1:{broker.port}", username="v", password="w")
        await assert_messages_pass(config)
        wrong = NatsConfig(address=f"nats://u:hidden@127.0.0.1:{broker.port}")
        assert "hidden" not in await refusal_of(wrong)


@pytest.mark.parametrize("where", ["configuration", "address"])
async def test_token(tmp_path: Path, where: str) -> None:
    """A token, from the configuration or from the address."""
    async with open_broker(tmp_path, "authorization { token: secret }\n") as broker:
        if where == "address":
            await assert_messages_pass(NatsConfig(address=f"nats://secret@127.0.0.1:{broker.port}"))
        else:
            await assert_messages_pass(NatsConfig(address=broker.url, token="secret"))


async def test_nkey(tmp_path: Path) -> None:
    """The seed signs, and the server knows the public key alone."""
    seed_file = tmp_path / "user.nk"
    seed_file.write_text(encode_seed(SEED) + "\n")
    config = f"authorization {{ users: [{{nkey: {public_key(SEED)}}}] }}\n"
    async with open_broker(tmp_path, config) as broker:
        await assert_messages_pass(NatsConfig(address=broker.url, nkey_seed_file=str(seed_file)))
        seed_file.write_text(encode_seed(bytes(32)))
        refusal = await refusal_of(NatsConfig(address=broker.url, nkey_seed_file=str(seed_file)))
        assert "Authorization Violation" in refusal


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_of(prefix: int, seed: bytes) -> str:
    """Return the public nkey of an operator or account."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    raw = bytes([prefix]) + public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def jwt(issuer: str, seed: bytes, subject: str, **claims: Any) -> str:
    """Return a JWT as NATS wants it: signed with Ed25519 by an nkey."""
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {"jti": subject, "iat": 1, "iss": issuer, "sub": subject, "name": subject, "nats": claims}
    text = ".".join(base64url(json.dumps(part).encode()) for part in (header, body))
    return f"{text}.{base64url(Ed25519PrivateKey.from_private_bytes(seed).sign(text.encode()))}"


def creds_text(seed: bytes, account: str, account_seed: bytes) -> str:
    user = public_key(seed)
    token = jwt(account, account_seed, user, type="user", version=2, subs=-1, data=-1, payload=-1)
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{encode_seed(seed)}\n------END USER NKEY SEED------\n"
    )


async def test_creds_and_their_rotation(tmp_path: Path) -> None:
    """A creds file of an operator's account; a changed file is read at the next connection."""
    operator_seed, account_seed, other_seed = b"o" * 32, b"a" * 32, b"x" * 32
    operator, account = key_of(OPERATOR, operator_seed), key_of(ACCOUNT, account_seed)
    limits = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1}
    account_jwt = jwt(operator, operator_seed, account, type="account", version=2, limits=limits)
    config = (
        f"operator: {jwt(operator, operator_seed, operator, type='operator', version=2)}\n"
        f"resolver: MEMORY\nresolver_preload: {{ {account}: {account_jwt} }}\n"
    )
    creds = tmp_path / "user.creds"
    creds.write_text(creds_text(SEED, account, account_seed))
    async with open_broker(tmp_path, config) as broker:
        nats_config = NatsConfig(address=broker.url, creds_file_path=str(creds))
        await assert_messages_pass(nats_config)
        creds.write_text(creds_text(SEED, account, other_seed))  # signed by somebody else
        async with open_receiver(nats_config, "a") as receiver:
            assert "Authorization Violation" in await receiver.log.wait("cannot connect")
            creds.write_text(creds_text(SEED, account, account_seed))
            await receiver.log.wait("subscribed")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def write_certificates(directory: Path, authority: trustme.CA, *names: str) -> str:
    """Write ca.pem, server.pem and client.pem; return the lines of the server's configuration."""
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    server, client = authority.issue_cert(*(names or ("127.0.0.1",))), authority.issue_cert("client@site")
    for name, certificate in (("server", server), ("client", client)):
        certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / f"{name}.pem"))
    return f'cert_file: "{directory}/server.pem", key_file: "{directory}/server.pem"'


async def test_tls_that_the_server_requires(tmp_path: Path, authority: trustme.CA) -> None:
    """The server's INFO asks for TLS, and its certificate is checked."""
    files = write_certificates(tmp_path, authority)
    async with open_broker(tmp_path, f"tls {{ {files} }}\n") as broker:
        await assert_messages_pass(
            NatsConfig(address=broker.url, tls=NatsTlsConfig(ca_file=str(tmp_path / "ca.pem")))
        )
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal_of(NatsConfig(address=broker.url))


async def test_tls_that_the_address_asks_for(tmp_path: Path, authority: trustme.CA) -> None:
    """tls:// never speaks in clear: a server without TLS is refused."""
    files = write_certificates(tmp_path, authority)
    tls = NatsTlsConfig(ca_file=str(tmp_path / "ca.pem"))
    async with open_broker(tmp_path, f"tls {{ {files} }}\n", scheme="tls") as broker:
        await assert_messages_pass(NatsConfig(address=broker.url, tls=tls))
    async with open_broker(tmp_path, scheme="tls") as broker:
        assert "offers no TLS" in await refusal_of(NatsConfig(address=broker.url))


async def test_tls_optional_at_the_server(tmp_path: Path, authority: trustme.CA) -> None:
    """A server that allows both gets TLS from who is configured for it."""
    files = write_certificates(tmp_path, authority)
    async with open_broker(tmp_path, f"tls {{ {files} }}\nallow_non_tls: true\n") as broker:
        tls = NatsTlsConfig(ca_file=str(tmp_path / "ca.pem"))
        async with open_client(NatsConfig(address=broker.url, tls=tls)) as client:
            await client.wait_connected()
            connections = await trio.to_thread.run_sync(broker.look, "connz")
            assert connections["connections"][0]["tls_version"]
        await assert_messages_pass(NatsConfig(address=broker.url))


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    """A valid certificate of the right authority must also carry the server's name."""
    files = write_certificates(tmp_path, authority, "elsewhere.site")
    tls = NatsTlsConfig(ca_file=str(tmp_path / "ca.pem"))
    async with open_broker(tmp_path, f"tls {{ {files} }}\n") as broker:
        assert "IP address mismatch" in await refusal_of(NatsConfig(address=broker.url, tls=tls))


async def test_mutual_tls(tmp_path: Path, authority: trustme.CA) -> None:
    """The server wants a certificate of ours."""
    files = write_certificates(tmp_path, authority)
    config = f'tls {{ {files}, ca_file: "{tmp_path}/ca.pem", verify: true }}\n'
    async with open_broker(tmp_path, config) as broker:
        ours = NatsTlsConfig(
            ca_file=str(tmp_path / "ca.pem"),
            cert_file=str(tmp_path / "client.pem"),
            key_file=str(tmp_path / "client.pem"),
        )
        await assert_messages_pass(NatsConfig(address=broker.url, tls=ours))
        none = NatsTlsConfig(ca_file=str(tmp_path / "ca.pem"))
        await refusal_of(NatsConfig(address=broker.url, tls=none))


async def test_tls_first(tmp_path: Path, authority: trustme.CA) -> None:
    """TLS starts before the server's greeting."""
    files = write_certificates(tmp_path, authority)
    async with open_broker(tmp_path, f"tls {{ {files}, handshake_first: true }}\n") as broker:
        tls = NatsTlsConfig(ca_file=str(tmp_path / "ca.pem"), first=True)
        await assert_messages_pass(NatsConfig(address=broker.url, tls=tls))


async def test_many_messages_through_tls(tmp_path: Path, authority: trustme.CA) -> None:
    """Payloads far above a TLS record arrive whole and in order, from segment to segment."""
    files = write_certificates(tmp_path, authority)
    sent = [bytes([number]) * (number * 20_011 % 300_000) for number in range(64)]
    async with open_broker(tmp_path, f"tls {{ {files} }}\n") as broker:
        config = NatsConfig(address=broker.url, tls=NatsTlsConfig(ca_file=str(tmp_path / "ca.pem")))
        async with open_receiver(config, "a") as receiver:
            await receiver.log.wait("subscribed")
            async with open_client(config) as client:
                for payload in sent:
                    await client.publish("a", payload)
            assert sent == await receiver.store.wait(len(sent))


async def test_a_server_that_says_farewell_in_tls(tmp_path: Path, authority: trustme.CA) -> None:
    """The orderly end of TLS is an end like any other."""
    files = write_certificates(tmp_path, authority)
    async with open_broker(tmp_path, f"tls {{ {files} }}\n") as broker:
        config = NatsConfig(address=broker.url, tls=NatsTlsConfig(ca_file=str(tmp_path / "ca.pem")))
        async with open_receiver(config, "a") as receiver:
            await receiver.log.wait("subscribed")
            await trio.to_thread.run_sync(broker.stop)
            assert "closed by the server" in await receiver.log.wait("disconnected")


async def test_a_server_that_breaks_the_handshake() -> None:
    """A server that is no TLS server, or leaves in the middle, is a failed attempt."""

    async def leave(peer: FakePeer) -> None:
        await peer.stream.receive_some()  # all of it, lest the end be a reset

    async def babble(peer: FakePeer) -> None:
        await peer.send(b"hello")
        await peer.serve()

    async with open_fake(leave, babble) as server:
        config = NatsConfig(address=server.url, tls=NatsTlsConfig(first=True))
        async with open_receiver(config, "a") as receiver:
            assert "closed by the server in the TLS" in await receiver.log.wait("cannot connect")
            assert "SSL" in await receiver.log.wait("cannot connect")


async def test_all_bad_files_are_told_at_the_start(tmp_path: Path) -> None:
    """Files that cannot be used stop the start, all at once and each with its key."""
    (tmp_path / "bad.creds").write_text("nonsense")
    config = NatsConfig(
        address="ws://nowhere",
        creds_file_path=str(tmp_path / "bad.creds"),
        tls=NatsTlsConfig(ca_file=str(tmp_path / "missing.pem")),
    )
    with pytest.raises(ConfigError) as caught:
        await receive(config, [], _never, statistics=NatsStatistics())
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "nats.address",
        "nats.creds-file-path",
        "nats.tls",
    ]
    with pytest.raises(ConfigError, match=r"nats\.nkey-seed-file: .*missing"):
        await receive(
            NatsConfig(address="h", nkey_seed_file=str(tmp_path / "missing")),
            [],
            _never,
            statistics=NatsStatistics(),
        )


async def _never(messages: object) -> None:
    raise AssertionError("nothing can be delivered")


async def test_a_user_that_is_removed_and_comes_back(tmp_path: Path) -> None:
    """A server that throws us out is asked again until it knows us again, and the reason is logged."""
    before = "authorization { users: [{user: u, password: p}, {user: v, password: q}] }\n"
    after = "authorization { users: [{user: v, password: q}] }\n"
    async with (
        open_broker(tmp_path, before) as broker,
        open_receiver(NatsConfig(address=broker.url, username="u", password="p"), "a") as receiver,
    ):
        await receiver.log.wait("subscribed")
        await _reload(broker, after)
        await receiver.log.wait("disconnected")
        assert "Authorization Violation" in await receiver.log.wait("cannot connect")
        await _reload(broker, before)
        await receiver.log.wait("reconnected")


async def _reload(broker: Broker, config: str) -> None:
    await trio.to_thread.run_sync(broker.reload, config)
