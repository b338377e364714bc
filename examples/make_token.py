"""Make the key that tokens are signed with, and tokens for those who may use a store.

    python examples/make_token.py key token.key                      # prints main.jwt-public-key
    python examples/make_token.py token token.key collectors api     # a token that does not end
    python examples/make_token.py token token.key alice user 90      # a token for 90 days

Needs cryptography and PyJWT, which come with ccstore. Whoever has the key file can make tokens: keep it
where the store is not. The store needs the public key alone.
"""

import base64
import os
import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

DAY = 86400


def make_key(path: str) -> str:
    """Write a new private key to a file that only we can read; return the public key in base64."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def make_token(path: str, user: str, role: str, days: int | None = None) -> str:
    """Return a token that tells who shows it, and what that one may do: admin, api or user."""
    key = load_pem_private_key(Path(path).read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey), f"{path}: not an Ed25519 key"
    now = int(time.time())
    claims: dict[str, object] = {"sub": user, "roles": [role], "iat": now}
    if days is not None:
        claims["exp"] = now + days * DAY
    return jwt.encode(claims, key, algorithm="EdDSA")


def main() -> int:
    """Print what was asked for; return 0, or 2 if that makes no sense."""
    match sys.argv[1:]:
        case ["key", path]:
            print(make_key(path))
        case ["token", path, user, role]:
            print(make_token(path, user, role))
        case ["token", path, user, role, days]:
            print(make_token(path, user, role, int(days)))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
