"""Who may do what: from a signed token to an identity, from an identity to permissions.

Owns the check of tokens and the table of roles. Never reads a clock or a request: it is given
headers and the time. Invariant: an identity comes only from a token whose signature was verified
with the configured key, and whose times agree with `now`, on its first use as on its thousandth.

To verify a signature costs 0.1 ms and collectors show the same token for months, so verified
tokens are kept. Failed ones are not: anybody can invent them, and they would push the others out.
"""

import enum
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jwt
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ccstore.errors import CcstoreError

__all__ = [
    "AuthenticationError",
    "Authenticator",
    "ForbiddenError",
    "Identity",
    "Permission",
    "check_address",
]

KEPT_TOKENS = 1024
"""Verified tokens that are remembered; beyond it the one used longest ago is verified anew."""

BEARER = "Bearer "


class AuthenticationError(CcstoreError):
    """A client must act: it shows no token, or one that is not valid now."""


class ForbiddenError(CcstoreError):
    """A client must act: its token is valid, and does not permit this."""


class Permission(enum.Enum):
    """What an endpoint needs."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


ALL = frozenset(Permission)
WITHOUT_ROLES = frozenset({Permission.READ, Permission.WRITE})
"""Tokens in use carry no `roles` at all; they must go on to write."""

PERMISSIONS_OF = {
    "admin": ALL,
    "api": frozenset({Permission.READ, Permission.WRITE}),
    "manager": frozenset({Permission.READ}),
    "support": frozenset({Permission.READ}),
    "user": frozenset({Permission.READ}),
}


@frozen
class Identity:
    """Who asks, and what it may do."""

    user: str
    """The claim ``sub``, else ``user``; "" if the token names nobody."""
    permissions: frozenset[Permission]

    def require(self, permission: Permission) -> None:
        """Raise ForbiddenError unless this identity has `permission`."""
        if permission not in self.permissions:
            raise ForbiddenError(f"token of {self.user!r}: no role that permits {permission.value}")


ANYBODY = Identity("", ALL)


@frozen
class _Token:
    """A token whose signature was verified: an identity and when it holds, in [start, stop)."""

    identity: Identity
    start: float
    stop: float


class Headers(Protocol):
    """Header fields by name, whatever their case; a dict with the usual names will do."""

    def get(self, key: str, default: str, /) -> str: ...


class Authenticator:
    """Verifies tokens (JWS, EdDSA) with one Ed25519 public key.

    An empty `public_key` lets everybody do everything. With `check_roles` false a valid token
    permits everything, whatever roles it carries.
    """

    def __init__(self, public_key: bytes, *, check_roles: bool = True) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(public_key) if public_key else None
        self._check_roles = check_roles
        self._tokens: OrderedDict[str, _Token] = OrderedDict()
        claims = (
            "exp",
            "iat",
            "nbf",
            "aud",
            "iss",
            "sub",
            "jti",
        )  # the times are ours: PyJWT reads the clock
        self._jwt = jwt.PyJWT(dict.fromkeys((f"verify_{claim}" for claim in claims), False))  # type: ignore[arg-type]

    def authenticate(self, headers: Headers, now: int) -> Identity:
        """Return who shows the token in ``X-Auth-Token``, else in ``Authorization: Bearer``.

        `now` is in whole seconds. Raises AuthenticationError if there is no token that is valid now.
        """
        if self._key is None:
            return ANYBODY
        text = _token_in(headers)
        token = self._tokens.get(text)
        if token is None:
            token = self._tokens[text] = self._verify(text, self._key)
            if len(self._tokens) > KEPT_TOKENS:
                self._tokens.popitem(last=False)
        self._tokens.move_to_end(text)
        if now >= token.stop:
            raise AuthenticationError(f"token of {token.identity.user!r}: expired")
        if now < token.start:
            raise AuthenticationError(f"token of {token.identity.user!r}: not valid yet")
        return token.identity

    def _verify(self, text: str, key: Ed25519PublicKey) -> _Token:
        try:
            claims = self._jwt.decode(text, key, algorithms=["EdDSA"])
        except (jwt.PyJWTError, RecursionError) as error:  # the latter from JSON that is all brackets
            raise AuthenticationError(f"token: not valid: {error}") from error
        user = claims.get("sub") or claims.get("user") or ""
        permissions = _permissions(claims.get("roles")) if self._check_roles else ALL
        return _Token(
            Identity(str(user), permissions),
            start=max(_seconds(claims, name, absent=-math.inf, bad=math.inf) for name in ("iat", "nbf")),
            stop=_seconds(claims, "exp", absent=math.inf, bad=-math.inf),
        )


def check_address(address: str | None, allowed: Sequence[str]) -> None:
    """Raise ForbiddenError unless a client's IP address is one of `allowed`; "*" as the first one allows all.

    No addresses at all allow all, too. An IPv4 address is the same when it is written as an IPv6 one.
    """
    if not allowed or allowed[0] == "*":
        return
    try:
        found = _plain(address or "")
    except ValueError:  # a client without an address, over a socket of another kind
        found = None
    if found is None or found not in {_plain(one) for one in allowed if one != "*"}:
        raise ForbiddenError(f"client {address!r}: not in main.api-allowed-ips")


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address)
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _token_in(headers: Headers) -> str:
    token = headers.get("X-Auth-Token", "")
    authorization = headers.get("Authorization", "")
    if not token and authorization.startswith(BEARER):
        token = authorization[len(BEARER) :]
    if not token:
        raise AuthenticationError("token: missing (wanted Authorization: Bearer <token>)")
    return token


def _permissions(roles: Any) -> frozenset[Permission]:
    """Combine what the names in the claim `roles` permit; names we do not know permit nothing."""
    if roles is None:
        return WITHOUT_ROLES
    if not isinstance(roles, list):
        raise AuthenticationError(f"token: roles: wanted a list of names (got {roles!r})")
    names = (str(role).lower().removeprefix("role_") for role in roles)
    return frozenset().union(*(PERMISSIONS_OF.get(name, frozenset()) for name in names))


def _seconds(claims: Mapping[str, Any], name: str, *, absent: float, bad: float) -> float:
    """Return a claim that is a time; `absent` if there is none, `bad` if it is not a number."""
    if name not in claims:
        return absent
    value = claims[name]
    if type(value) is int or (type(value) is float and math.isfinite(value)):  # a bool is neither
        return value
    return bad
