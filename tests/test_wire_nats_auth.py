"""Addresses, nkeys and creds: from the text that operators write to values."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from ccstore.errors import ConfigError
from ccstore.wire.nats_auth import (
    Address,
    Credentials,
    decode_creds,
    decode_seed,
    encode_seed,
    parse_addresses,
    public_key,
    sign_in,
)

# The example key pair of the documentation of NATS.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats://broker", [Address("broker")]),
        ("broker:4333", [Address("broker", 4333)]),
        ("tls://broker:1", [Address("broker", 1, tls=True)]),
        ("nats://[::1]:4333", [Address("::1", 4333)]),
        ("10.1.2.3, my_host.site.", [Address("10.1.2.3"), Address("my_host.site.")]),
        ("nats://u:p%40ss@broker", [Address("broker", username="u", password="p@ss")]),
        ("nats://secret@broker", [Address("broker", token="secret")]),
        ("nats://a, tls://b:2 ,c", [Address("a"), Address("b", 2, tls=True), Address("c")]),
    ],
)
def test_addresses(text: str, expected: list[Address]) -> None:
    """Scheme and port may be missing; user and token are taken apart."""
    assert expected == list(parse_addresses(text))


def test_all_bad_addresses_are_named_without_their_password() -> None:
    """Each mistake is told with the number of its address, and no secret is shown."""
    bad = ["ws://u:hidden@a", "nats://hidden@", "nats://a:99999", "a/path", "a:0", "a..b", ".c", "ü", "x y"]
    with pytest.raises(ConfigError) as caught:
        parse_addresses(",".join(["nats://fine", *bad]))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        f"server {number}" for number in range(2, 2 + len(bad))
    ]
    assert "hidden" not in str(caught.value)


def test_secrets_are_not_shown_when_printed() -> None:
    """Neither text nor repr of an address or of credentials shows a secret."""
    address = Address("h", password="hidden", token="hidden", username="u")
    credentials = Credentials("u", "hidden", "hidden", "hidden", b"hidden")
    assert "hidden" not in f"{address} {address!r} {credentials!r}"
    assert str(Address("::1", 1, tls=True)) == "tls://[::1]:1"


def test_a_neighbour_inherits_transport_and_user() -> None:
    """A server announced by its cluster is spoken to like the one that announced it."""
    known = Address("broker.site", 1, tls=True, username="u", password="p")
    by_ip = Address("10.0.0.1", 4222, tls=True, username="u", password="p", tls_name="broker.site")
    assert by_ip == known.neighbour("10.0.0.1:4222")
    assert Address("b2", 7, tls=True, username="u", password="p") == known.neighbour("b2:7")
    assert by_ip.neighbour("10.0.0.2:4222").tls_name == "broker.site"


def test_known_key_pair() -> None:
    """A seed published by the makers of NATS yields the public key published with it."""
    seed = decode_seed(SEED)
    assert encode_seed(seed) == SEED
    assert public_key(seed) == PUBLIC


@given(st.binary(min_size=32, max_size=32))
def test_seeds_survive_a_round_trip(seed: bytes) -> None:
    """Text and bytes of a seed say the same, with anything around the text."""
    assert seed == decode_seed(f"# comment\n{encode_seed(seed)}\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no user nkey seed"),
        (SEED[:-2], "no user nkey seed"),
        (SEED[:-1] + "X", "checksum"),
        (SEED[:9] + "1" + SEED[10:], "base32"),
        ("SOAMQSU4C5VYVVY2JLMXJJ6FUVMQ3EQPYVFFHRGNSKIQ2VNQ5MWZ3SYUNA", "no user nkey seed"),
    ],
)
def test_bad_seeds_are_refused_and_not_shown(text: str, problem: str) -> None:
    """A seed that is no user seed, cut or mistyped is a mistake of the operator."""
    with pytest.raises(ConfigError, match=problem) as caught:
        decode_seed(text)
    assert not text or text not in str(caught.value)


def test_creds_hold_jwt_and_seed() -> None:
    """Both blocks of a creds file are found, whatever is around them."""
    text = (
        "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
    )
    assert ("eyJ0.eyJq.c2ln", decode_seed(SEED)) == decode_creds(text)


def test_half_creds_are_refused() -> None:
    """A file without one of the blocks is no creds file."""
    with pytest.raises(ConfigError, match="creds"):
        decode_creds("-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n")


@pytest.mark.parametrize(
    ("credentials", "address", "expected"),
    [
        (Credentials(), Address("h"), {}),
        (Credentials("u", "p"), Address("h"), {"user": "u", "pass": "p"}),
        (Credentials("u", ""), Address("h"), {}),
        (Credentials(token="t"), Address("h"), {"auth_token": "t"}),
        (Credentials("u", "p"), Address("h", username="v", password="q"), {"user": "v", "pass": "q"}),
        (Credentials("u", "p", "t"), Address("h", username="v", password="q"), {"user": "v", "pass": "q"}),
        (Credentials("u", "p", "t"), Address("h", token="s"), {"auth_token": "s"}),
    ],
)
def test_the_address_wins_over_the_configuration(
    credentials: Credentials, address: Address, expected: dict[str, str]
) -> None:
    """User or token of the address replace the configured ones; half a user is none."""
    assert expected == sign_in(credentials, address, "")


def test_the_signature_is_of_the_nonce() -> None:
    """The server can verify the answer with the public key alone."""
    seed = decode_seed(SEED)
    fields = sign_in(Credentials(seed=seed), Address("h"), "a-nonce")
    raw_key = base64.b32decode(PUBLIC)[1:33]
    signature = base64.urlsafe_b64decode(fields["sig"] + "==")
    Ed25519PublicKey.from_public_bytes(raw_key).verify(signature, b"a-nonce")
    assert {"nkey": PUBLIC, "sig": fields["sig"]} == fields
    assert next(iter(sign_in(Credentials(jwt="j", seed=seed), Address("h"), "n").keys() - {"sig"})) == "jwt"
