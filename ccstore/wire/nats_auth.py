"""Where a NATS server is and who we are: addresses, passwords, tokens, nkeys and creds.

Owns the text forms that operators write: the address list of the configuration, the seed of an
nkey, the two blocks of a creds file. It opens none of these files and connects to nothing;
everything here is a function from text to values, so each form has its test without a server.

A server that wants a signature sends a nonce; the answer is its Ed25519 signature by the seed,
and next to it either our public key (nkey) or the JWT that names it (creds).
"""

import base64
import binascii
import ipaddress
import re
from urllib.parse import unquote, urlsplit

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccstore.errors import ConfigError

__all__ = ["Address", "Credentials", "decode_creds", "decode_seed", "parse_addresses", "sign_in"]

DEFAULT_PORT = 4222
SEED_BYTES = 32
PREFIX_SEED = 18 << 3  # the first letter of an encoded seed is S ...
PREFIX_USER = 20 << 3  # ... and the second, and the first of a public key, U for a user
HOST_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)
CREDS_BLOCK = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END \1-{3,}")


@frozen
class Address:
    """One server, with what its address says of transport and user."""

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False
    """The address was written ``tls://``: never speak in clear."""
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tls_name: str = ""
    """The name that the certificate must carry; empty for the host itself."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'nats'}://{host}:{self.port}"

    def neighbour(self, url: str) -> "Address":
        """Return the address of another server of the cluster, which this one announced as `url`.

        It inherits the transport and the user. A bare IP address is checked against the name we
        know the cluster by, because certificates rarely carry addresses. Raises ConfigError.
        """
        other = _parse_address(url)
        return Address(
            host=other.host,
            port=other.port,
            tls=self.tls,
            username=self.username,
            password=self.password,
            token=self.token,
            tls_name=(self.tls_name or self.host) if _is_ip(other.host) else "",
        )


@frozen
class Credentials:
    """Who we are, from the configuration; empty fields are not used."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)
    seed: bytes = field(default=b"", repr=False)
    """The 32 bytes of an Ed25519 private key, see `decode_seed`."""


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Read a comma separated list of ``nats://`` or ``tls://`` addresses; at least one.

    Scheme and port may be missing. Raises ConfigError with every mistake; the text of an address
    is not shown in it, for it may hold a password.
    """
    addresses: list[Address] = []
    problems: list[str] = []
    for number, part in enumerate(text.split(","), start=1):
        try:
            addresses.append(_parse_address(part.strip()))
        except ConfigError as error:
            problems.append(f"server {number}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(addresses)


def _parse_address(text: str) -> Address:
    try:
        url = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = url.hostname, DEFAULT_PORT if url.port is None else url.port
    except ValueError as error:
        raise ConfigError(f"address is malformed ({error})") from error
    if url.scheme not in ("nats", "tls"):
        raise ConfigError(f"address has an unknown scheme (got {url.scheme!r}, wanted 'nats' or 'tls')")
    if not host or not port or not (HOST_NAME.fullmatch(host) or _is_ip(host)):
        raise ConfigError("address has a malformed host, or port 0 (wanted nats://host:port)")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise ConfigError("address goes on after the port (wanted nats://host:port)")
    user, password = unquote(url.username or ""), unquote(url.password or "")
    return Address(
        host=host,
        port=port,
        tls=url.scheme == "tls",
        username=user if password else "",
        password=password,
        token="" if password else user,
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def decode_seed(text: str) -> bytes:
    """Return the 32 bytes of the user seed (``SU...``) that is the first such word in `text`.

    Base32 of two prefix bytes, the key and its CRC-16 (XMODEM), as in github.com/nats-io/nkeys.
    Raises ConfigError, which never shows the seed.
    """
    word = next((word for word in text.split() if word.startswith("SU")), "")
    try:
        raw = base64.b32decode(word + "=" * (-len(word) % 8))
    except binascii.Error as error:
        raise ConfigError(f"nkey seed is not base32 ({error})") from error
    if len(raw) != 2 + SEED_BYTES + 2:
        raise ConfigError("no user nkey seed found (wanted a word of 58 letters that starts with SU)")
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise ConfigError("nkey seed has a wrong checksum")
    return raw[2:-2]


def encode_seed(seed: bytes) -> str:
    """Return the text form of a user seed, the reverse of `decode_seed`."""
    return _encode_key(bytes([PREFIX_SEED | PREFIX_USER >> 5, PREFIX_USER << 3 & 0xFF]) + seed)


def public_key(seed: bytes) -> str:
    """Return the public nkey (``U...``) of a user seed, as servers know it."""
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return _encode_key(bytes([PREFIX_USER]) + key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def decode_creds(text: str) -> tuple[str, bytes]:
    """Return JWT and seed of a creds file. Raises ConfigError."""
    blocks = {match[1]: match[2] for match in CREDS_BLOCK.finditer(text)}
    if "NATS USER JWT" not in blocks or "USER NKEY SEED" not in blocks:
        raise ConfigError("not a creds file (wanted the blocks NATS USER JWT and USER NKEY SEED)")
    return blocks["NATS USER JWT"], decode_seed(blocks["USER NKEY SEED"])


def sign_in(credentials: Credentials, address: Address, nonce: str) -> dict[str, str]:
    """Return the fields of CONNECT that say who we are.

    A user or token in the address wins over the configured one, as in other NATS clients. User
    and password count only if both are set.
    """
    fields: dict[str, str] = {}
    username, password = credentials.username, credentials.password
    if address.username:
        username, password = address.username, address.password
    if username and password and not address.token:
        fields |= {"user": username, "pass": password}
    token = address.token or ("" if address.username else credentials.token)
    if token:
        fields["auth_token"] = token
    if credentials.seed:
        signature = Ed25519PrivateKey.from_private_bytes(credentials.seed).sign(nonce.encode())
        fields["sig"] = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
        fields |= {"jwt": credentials.jwt} if credentials.jwt else {"nkey": public_key(credentials.seed)}
    return fields


def _encode_key(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).rstrip(b"=").decode()
