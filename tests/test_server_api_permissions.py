"""Who may use which route of a whole server, by the roles of the token."""

import base64
from typing import Any

import jwt
import pytest
from apiserver import error_of, running
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from serving import NOW

PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = PRIVATE_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

EXAMPLE_KEY = base64.b64decode("kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0=")
EXAMPLE_TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9."
    "eyJ1c2VyIjoiYWRtaW4iLCJyb2xlcyI6WyJST0xFX0FETUlOIiwiUk9MRV9BTkFMWVNUIiwiUk9MRV9VU0VSIl19."
    "d-3_3FZTsadPjDEdsWrrQ7nS0edMAR4zjl-eK7rJU3HziNBfI9PDHDIpJVHTNN5E5SlLGLFXctWyKAkwhXL-Dw"
)

READ = [
    ("GET", "/api/query", "{}"),
    ("POST", "/api/query/", "{}"),
    ("GET", "/api/healthcheck", "{}"),
    ("GET", "/api/clusters", None),
    ("GET", "/api/metrics", None),
    ("GET", "/api/stats", None),
    ("GET", "/api/v1/query?query=1", None),
    ("POST", "/api/v1/query_range?query=1&start=1&end=1&step=1", ""),
    ("GET", "/api/v1/series?match[]=x", None),
    ("POST", "/api/v1/labels", ""),
    ("GET", "/api/v1/label/cluster/values", None),
    ("GET", "/api/v1/metadata", None),
    ("GET", "/api/v1/status/buildinfo", None),
]
WRITE = [("POST", "/api/write", ""), ("POST", "/api/write/?cluster=c", "")]
ADMIN = [("POST", "/api/free?to=1", "[]"), ("POST", "/api/checkpoint", None), ("GET", "/api/debug", None)]
OPEN = [
    ("GET", "/api/health/live", None),
    ("GET", "/api/health/ready", None),
    ("GET", "/metrics", None),
    ("GET", "/", None),
]

ROLES = {
    "none": ({}, READ + WRITE),
    "empty": ({"roles": []}, []),
    "admin": ({"roles": ["admin"]}, READ + WRITE + ADMIN),
    "ROLE_ADMIN": ({"roles": ["ROLE_ADMIN"]}, READ + WRITE + ADMIN),
    "api": ({"roles": ["api"]}, READ + WRITE),
    "user": ({"roles": ["user"]}, READ),
    "Manager": ({"roles": ["Manager"]}, READ),
    "support": ({"roles": ["support"]}, READ),
    "user and api": ({"roles": ["user", "api"]}, READ + WRITE),
    "other": ({"roles": ["analyst"]}, []),
}


def bearer(claims: dict[str, Any], key: Any = PRIVATE_KEY, algorithm: str = "EdDSA") -> tuple[str, str]:
    return "Authorization", f"Bearer {jwt.encode(claims, key, algorithm=algorithm)}"


@pytest.mark.parametrize("name", sorted(ROLES))
async def test_what_a_role_permits(name: str) -> None:
    """Each route answers 200 to those who may, and 403 with an error object to the others."""
    claims, permitted = ROLES[name]
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        for method, target, body in READ + WRITE + ADMIN:
            answer = await server.ask(method, target, body, headers=[bearer(claims)])
            expected = 200 if (method, target, body) in permitted else 403
            assert (target, answer.status) == (target, expected)
            if expected == 403:
                assert error_of(answer)["error"].startswith("token of ''")


async def test_without_a_token() -> None:
    """Only what a load balancer or Prometheus asks for is open; all else answers 401 and tells the scheme."""
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        for method, target, body in READ + WRITE + ADMIN:
            answer = await server.ask(method, target, body)
            assert (answer.status, answer["WWW-Authenticate"]) == (401, "Bearer")
            assert error_of(answer)["error"].startswith("token: missing")
        for method, target, body in OPEN:
            assert (await server.ask(method, target, body)).status == 200


async def test_nothing_happens_without_permission() -> None:
    """A refused write stores and counts nothing."""
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        for headers in ([], [bearer({"roles": ["user"]})]):
            line = b"x,cluster=c,hostname=h value=1 1000\n"
            assert (await server.ask("POST", "/api/write", line, headers=headers)).status in (401, 403)
        assert server.counts() == {}


async def test_no_key_and_no_authentication() -> None:
    """Without a key everybody may do everything."""
    async with running() as server:
        for method, target, body in READ + WRITE + ADMIN + OPEN:
            assert (await server.ask(method, target, body)).status == 200


@pytest.mark.parametrize("setting", [{"jwt_roles": "ignore"}, {"disable_authentication": True}], ids=str)
async def test_switches(setting: dict[str, Any]) -> None:
    """`main.jwt-roles` "ignore" takes any valid token, `main.disable-authentication` needs none."""
    async with running(jwt_public_key=PUBLIC_KEY, **setting) as server:
        headers = [bearer({"roles": ["analyst"]})] if "jwt_roles" in setting else []
        for method, target, body in READ + WRITE + ADMIN:
            assert (await server.ask(method, target, body, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({}, 200),
        ({"exp": NOW + 100}, 200),
        ({"exp": NOW + 1}, 200),
        ({"exp": NOW}, 401),
        ({"exp": NOW - 1}, 401),
        ({"exp": "soon"}, 401),
        ({"iat": NOW}, 200),
        ({"iat": NOW + 100}, 401),
        ({"nbf": NOW + 100}, 401),
    ],
    ids=str,
)
async def test_times_of_a_token(claims: dict[str, Any], status: int) -> None:
    """Whole seconds, without leeway."""
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        assert (await server.ask("POST", "/api/query", "{}", headers=[bearer(claims)])).status == status


async def test_a_token_expires_while_the_server_runs() -> None:
    """Also one that was verified before."""
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        headers = [bearer({"exp": NOW + 1})]
        assert (await server.ask("POST", "/api/query", "{}", headers=headers)).status == 200
        server.clock.now += 1
        answer = await server.ask("POST", "/api/query", "{}", headers=headers)
    assert answer.status == 401
    assert error_of(answer) == {"error": "token of '': expired"}


OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer x"),
        ("Authorization", "Bearer"),
        ("Authorization", bearer({})[1].replace("Bearer", "bearer")),
        ("Authorization", bearer({})[1].replace("Bearer ", "Bearer  ")),
        ("Cookie", bearer({})[1].replace("Bearer ", "token=")),
        bearer({}, OTHER_KEY),
        bearer({}, "x" * 32, "HS256"),
    ],
    ids=["nonsense", "empty", "case", "spaces", "cookie", "other key", "HS256"],
)
async def test_headers_that_are_no_token(header: tuple[str, str]) -> None:
    """Each gets 401."""
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        answer = await server.ask("POST", "/api/query", "{}", headers=[header])
    assert answer.status == 401
    error_of(answer)


async def test_the_published_key_and_token() -> None:
    """A token made elsewhere is good here; its role is that of an administrator."""
    async with running(jwt_public_key=EXAMPLE_KEY) as server:
        for name, value in (("Authorization", f"Bearer {EXAMPLE_TOKEN}"), ("X-Auth-Token", EXAMPLE_TOKEN)):
            for method, target, body in READ + WRITE + ADMIN:
                assert (await server.ask(method, target, body, headers=[(name, value)])).status == 200
