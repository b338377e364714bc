"""Tokens, roles, and whom the server lets in."""

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccstore.server import auth
from ccstore.server.auth import (
    AuthenticationError,
    Authenticator,
    ForbiddenError,
    Identity,
    Permission,
)

NOW = 1_700_000_000
PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = PRIVATE_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

EXAMPLE_KEY = base64.b64decode("kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0=")
INTEROPERABILITY_TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9."
    "eyJ1c2VyIjoiYWRtaW4iLCJyb2xlcyI6WyJST0xFX0FETUlOIiwiUk9MRV9BTkFMWVNUIiwiUk9MRV9VU0VSIl19."
    "d-3_3FZTsadPjDEdsWrrQ7nS0edMAR4zjl-eK7rJU3HziNBfI9PDHDIpJVHTNN5E5SlLGLFXctWyKAkwhXL-Dw"
)

READ, WRITE, ADMIN = Permission.READ, Permission.WRITE, Permission.ADMIN


def sign(claims: dict[str, Any], key: Any = PRIVATE_KEY, algorithm: str | None = "EdDSA") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(PUBLIC_KEY)


def test_published_token_verifies() -> None:
    """A token that other programs have made is accepted with its key."""
    identity = Authenticator(EXAMPLE_KEY).authenticate(bearer(INTEROPERABILITY_TOKEN), NOW)
    assert identity == Identity("admin", frozenset({READ, WRITE, ADMIN}))


@pytest.mark.parametrize("position", [5, 60, 150, 200])
def test_published_token_with_one_changed_letter(position: int) -> None:
    """Any change of header, payload or signature is noticed."""
    text = INTEROPERABILITY_TOKEN
    changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
    with pytest.raises(AuthenticationError):
        Authenticator(EXAMPLE_KEY).authenticate(bearer(changed), NOW)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "bearer {}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer  {}"},
        {"Authorization": "{}"},
        {"Authorization": "Basic {}"},
        {"Cookie": "token={}"},
        {"X-Auth-Token": "x", "Authorization": "Bearer {}"},
        {"X-Auth-Token": "Bearer {}"},
    ],
    ids=str,
)
def test_headers_that_let_nobody_in(authenticator: Authenticator, headers: dict[str, str]) -> None:
    """Without a well-formed token in the right place there is no identity."""
    shown = {name: value.format(sign({})) for name, value in headers.items()}
    with pytest.raises(AuthenticationError):
        authenticator.authenticate(shown, NOW)


@pytest.mark.parametrize("header", ["Authorization", "X-Auth-Token"])
def test_both_headers(authenticator: Authenticator, header: str) -> None:
    """The token may stand in either of two headers."""
    token = sign({"sub": "someone"})
    value = f"Bearer {token}" if header == "Authorization" else token
    assert authenticator.authenticate({header: value}, NOW).user == "someone"


@pytest.mark.parametrize(
    ("claims", "valid"),
    [
        ({}, True),
        ({"exp": NOW + 100}, True),
        ({"exp": NOW + 1}, True),
        ({"exp": NOW}, False),
        ({"exp": NOW - 1}, False),
        ({"exp": 0}, False),
        ({"exp": NOW + 0.5}, True),
        ({"exp": str(NOW + 100)}, False),
        ({"exp": True}, False),
        ({"exp": None}, False),
        ({"exp": 10**400}, True),
        ({"iat": NOW}, True),
        ({"iat": NOW + 1}, False),
        ({"iat": NOW + 100}, False),
        ({"iat": "yesterday"}, False),
        ({"nbf": NOW}, True),
        ({"nbf": NOW + 100}, False),
        ({"nbf": [NOW]}, False),
        ({"nbf": NOW - 10, "iat": NOW + 10}, False),
        ({"aud": "somebody else", "iss": 7, "jti": []}, True),
    ],
    ids=str,
)
def test_times_of_a_token(authenticator: Authenticator, claims: dict[str, Any], valid: bool) -> None:
    """Times are compared with now, to the second, and no claim is needed."""
    payload = json.dumps(claims).encode()
    token = jwt.PyJWS().encode(payload, PRIVATE_KEY, algorithm="EdDSA")
    for _ in range(2):  # the second time from memory
        if valid:
            assert authenticator.authenticate(bearer(token), NOW).permissions == {READ, WRITE}
        else:
            with pytest.raises(AuthenticationError):
                authenticator.authenticate(bearer(token), NOW)


@pytest.mark.parametrize("claim", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_times_that_are_no_times(authenticator: Authenticator, name: str, claim: float) -> None:
    """NaN and infinity, which JSON of some libraries carries, are not times."""
    token = jwt.PyJWS().encode(json.dumps({name: claim}).encode(), PRIVATE_KEY, algorithm="EdDSA")
    with pytest.raises(AuthenticationError):
        authenticator.authenticate(bearer(token), NOW)


def test_remembered_token_expires(authenticator: Authenticator) -> None:
    """A token that was valid is refused from the second on in which it expires."""
    token = sign({"exp": NOW + 2, "nbf": NOW - 2})
    for now in (NOW - 2, NOW + 1):
        authenticator.authenticate(bearer(token), now)
    for now in (NOW + 2, NOW - 3):
        with pytest.raises(AuthenticationError):
            authenticator.authenticate(bearer(token), now)


def test_memory_of_tokens_is_bounded(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token used longest ago is forgotten, and failed tokens are never remembered."""
    monkeypatch.setattr(auth, "KEPT_TOKENS", 3)
    tokens = [sign({"sub": str(number)}) for number in range(4)]
    for token in [*tokens[:3], tokens[0], tokens[3]]:
        authenticator.authenticate(bearer(token), NOW)
    for number in range(10):
        with pytest.raises(AuthenticationError):
            authenticator.authenticate(bearer(f"invented{number}"), NOW)
    assert list(authenticator._tokens) == [tokens[2], tokens[0], tokens[3]]


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(sign({}, "x" * 32, "HS256"), id="HS256"),
        pytest.param(
            sign({}, base64.b64encode(PUBLIC_KEY).decode(), "HS256"), id="HS256 with our public key"
        ),
        pytest.param(sign({}, None, None), id="none"),
        pytest.param(sign({}, Ed25519PrivateKey.generate()), id="other key"),
        pytest.param(sign({}, Ed448PrivateKey.generate()), id="other curve"),
        pytest.param(sign({}).rpartition(".")[0] + ".", id="no signature"),
        pytest.param("..", id="dots"),
        pytest.param("a.b.c", id="no base64"),
        pytest.param("é.ü.ö", id="not ASCII"),
        pytest.param(base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.AA", id="brackets"),
        pytest.param(jwt.PyJWS().encode(b"[]", PRIVATE_KEY, algorithm="EdDSA"), id="claims not an object"),
        pytest.param(jwt.PyJWS().encode(b"{", PRIVATE_KEY, algorithm="EdDSA"), id="claims not JSON"),
        pytest.param(jwt.PyJWS().encode(b"\xff", PRIVATE_KEY, algorithm="EdDSA"), id="claims not text"),
        pytest.param(sign({"roles": "admin"}), id="roles not a list"),
        pytest.param(sign({"roles": {"admin": 1}}), id="roles an object"),
        pytest.param(sign({}) + ".x", id="four parts"),
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_tokens_that_are_no_tokens_of_ours(authenticator: Authenticator, token: str) -> None:
    """Only Ed25519 with our key counts, whatever a token says of itself."""
    with pytest.raises(AuthenticationError):
        authenticator.authenticate(bearer(token), NOW)


@pytest.mark.parametrize(
    ("claims", "permitted"),
    [
        ({}, {READ, WRITE}),
        ({"roles": None}, {READ, WRITE}),
        ({"roles": []}, set()),
        ({"roles": ["api"]}, {READ, WRITE}),
        ({"roles": ["admin"]}, {READ, WRITE, ADMIN}),
        ({"roles": ["user"]}, {READ}),
        ({"roles": ["manager"]}, {READ}),
        ({"roles": ["support"]}, {READ}),
        ({"roles": ["ROLE_API"]}, {READ, WRITE}),
        ({"roles": ["Role_Admin"]}, {READ, WRITE, ADMIN}),
        ({"roles": ["ADMIN"]}, {READ, WRITE, ADMIN}),
        ({"roles": ["user", "api"]}, {READ, WRITE}),
        ({"roles": ["analyst"]}, set()),
        ({"roles": ["analyst", "user"]}, {READ}),
        ({"roles": ["xrole_admin", "administrator", 7, None, ["admin"]]}, set()),
    ],
    ids=lambda value: " ".join(sorted(map(str, value))) if isinstance(value, set) else str(value),
)
def test_permissions_of_roles(claims: dict[str, Any], permitted: set[Permission]) -> None:
    """Each role permits what the table says, and `check_roles` false permits everything."""
    token = bearer(sign(claims))
    assert Authenticator(PUBLIC_KEY).authenticate(token, NOW).permissions == permitted
    ignoring = Authenticator(PUBLIC_KEY, check_roles=False)
    assert ignoring.authenticate(token, NOW).permissions == {READ, WRITE, ADMIN}


def test_require() -> None:
    """What is not permitted is forbidden, which is not the same as not being known."""
    identity = Identity("someone", frozenset({READ}))
    identity.require(READ)
    with pytest.raises(ForbiddenError, match="token of 'someone': no role that permits write"):
        identity.require(WRITE)


def test_without_a_key_everybody_may_do_everything() -> None:
    """Without a key no header is looked at."""
    identity = Authenticator(b"").authenticate({"Authorization": "nonsense"}, NOW)
    assert identity.permissions == {READ, WRITE, ADMIN}
