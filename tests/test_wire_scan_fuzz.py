"""The fast pass and the full grammar agree on every input."""

import itertools
import random

import numpy as np
import pytest
from effort import EXAMPLES
from hypothesis import given
from hypothesis import strategies as st
from wire_keys import forget
from wire_lines import messages, near_midpoint, near_midpoints, numbers, thorough, times
from wire_oracle import Bench, Row, bare, expect, reasons

from ccstore.model import Outcome

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

clusters = st.sampled_from(["", "def", "c", "bad/name", "ä", "x" * 300, "nul\0"])
junk = st.sampled_from(
    [bytes(8), b"\n" * 8, b'"' * 8, b"0" * 8, b" value=1", b"12345678 value=1\n", b"\xff" * 9]
)

benches = st.builds(
    Bench,
    rows=st.sampled_from([1, 2, 7, 8192]),
    todo=st.sampled_from([1, 3, 2048]),
    ahead=st.sampled_from([1, 5, 16]),
    places=st.sampled_from([0, 1, 1000]),
    max_keys=st.sampled_from([1, 4, 1000]),
)


def check_rejects(bench: Bench, expected: list[list[Row]]) -> None:
    """Check that every bad line is explained, as the full grammar does."""
    told = {(reject.message, reject.line, reject.outcome, reject.reason) for reject in bench.rejects}
    possible, wanted = set(), set()
    for message, rows in enumerate(expected):
        for kinds, into in (
            ((Outcome.BAD_LINE, Outcome.LIMIT, Outcome.REFUSED_COMPONENT), possible),
            ((Outcome.BAD_LINE, Outcome.LIMIT), wanted),
        ):
            into |= {(message, *reason) for reason in reasons(rows, *kinds)}
    assert told <= possible
    if len(possible) <= 20:
        assert wanted <= told


@thorough
@given(
    benches,
    st.lists(messages(), min_size=1, max_size=4),
    st.lists(clusters, min_size=1, max_size=3),
    junk,
    st.randoms(),
)
def test_whatever_was_seen_before(
    bench: Bench, lines: list[list[bytes]], defaults: list[str], junk: bytes, chance: random.Random
) -> None:
    """Lines mean the same when their keys are new, known, guessed, or come in another order."""
    for default_cluster in [*defaults, defaults[0]]:
        for _ in range(2):
            texts = [b"".join(message) for message in lines]
            expected = [expect(text, default_cluster=default_cluster) for text in texts]
            rows = bench.scan(*texts, default_cluster=default_cluster, junk=junk)
            assert bare(itertools.chain(*expected)) == rows
            check_rejects(bench, expected)
        for message in lines:
            chance.shuffle(message)
        forget_some(bench, chance)


def forget_some(bench: Bench, chance: random.Random) -> None:
    """Forget the keys of some series, and perhaps all places; the series themselves stay."""
    series = bench.store.statistics().series
    dead = np.array([chance.random() < 0.3 for _ in range(series)], np.bool_)
    forget(bench.keys, dead)
    if chance.random() < 0.5:
        bench.scanner.forget_places()


@thorough
@given(
    messages(max_lines=4),
    st.randoms(),
    st.sampled_from(["", "def"]),
    st.sampled_from([1, 5, 16]),
    st.sampled_from([b"\n" * 8, b"m,host=h value=1 5\n", b"m,cluster=c,host=h0 value=1 5\n"]),
)
def test_in_any_order(
    odd: list[bytes], chance: random.Random, default_cluster: str, ahead: int, junk: bytes
) -> None:
    """Many known keys in random order, with other lines between them, in several messages, mean the same."""
    bench = Bench(ahead=ahead)
    known = [b"m,cluster=c,host=h%d value=%d 5\n" % (k, k) for k in range(30)]
    known += [b"plain,host=h%d value=%d 7\n" % (k, k) for k in range(28)]
    known += [b"m,host=h value=60 7\n", b"m,host=h\\\n"]  # a key of eight bytes, and one without an end
    for _ in range(4):
        texts = [b"".join(known[:20]), b"".join(known[20:45] + odd), b"".join(known[45:])]
        expected = [expect(text, default_cluster=default_cluster) for text in texts]
        rows = bench.scan(*texts, default_cluster=default_cluster, junk=junk)
        assert bare(itertools.chain(*expected)) == rows
        chance.shuffle(known)
        chance.shuffle(odd)


@thorough
@given(
    messages(),
    st.lists(st.integers(0, 2000), max_size=6),
    st.sampled_from([10, 40, 90, 200, 131072]),
    clusters,
)
def test_wherever_blocks_are_cut(
    lines: list[bytes], cuts: list[int], longest: int, default_cluster: str
) -> None:
    """A message scanned in blocks means what it means as a whole, also if lines are too long."""
    bench = Bench(longest=longest)
    message = b"".join(lines)
    expected = expect(message, default_cluster=default_cluster, longest=longest)
    for _ in range(2):
        rows = bench.scan_blocks(
            message, [cut % (len(message) + 1) for cut in cuts], default_cluster=default_cluster
        )
        assert bare(expected) == rows
        check_rejects(bench, [expected])
        rows = bench.scan(message, default_cluster=default_cluster)
        assert bare(expected) == rows


insides = st.lists(
    st.sampled_from([b"a", b"\n", b"\r\n", b'\\"', b"\\", b"1 5\n", b"m value=1\n"]), max_size=5
).map(b"".join)
lines_with_strings = st.builds(
    lambda head, inside, tail: head + b'"' + inside + tail,
    st.sampled_from([b"m,cluster=c,host=h value=", b"unk x=", b"m x=1,y=", b"# "]),
    insides,
    st.sampled_from(
        [
            b'" 5\n',
            b'"\n',
            b'" 5\r\n',
            b'",value=1\n',
            b'"',
            b'" ',
            b"\n",
            b'"x\n',
            b'" 5\nm,cluster=c,host=h value=1 5\n',
        ]
    ),
)


@thorough
@given(st.lists(lines_with_strings, max_size=5), st.integers(1, 60), st.sampled_from([10, 30, 50, 131072]))
def test_strings_in_blocks(lines: list[bytes], step: int, longest: int) -> None:
    """Strings, open and closed, over newlines and over cuts, end where they end in the whole message."""
    message = b"".join(lines)
    bench, expected = Bench(longest=longest), expect(message, longest=longest)
    assert bare(expected) == bench.scan_blocks(message, range(0, len(message), step))
    check_rejects(bench, [expected])
    assert bare(expected) == bench.scan(message)


@thorough
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(list(b'm,=h \\"\n\r#1.evalue')), max_size=80).map(bytes)
)
def test_bytes_of_any_kind(message: bytes) -> None:
    """Bytes that are no lines at all are taken the same way."""
    bench = Bench(max_keys=3)
    for _ in range(2):
        assert bare(expect(message)) == bench.scan(message)


@thorough
@given(
    st.lists(numbers | near_midpoints, min_size=20, max_size=100), st.lists(times, min_size=10, max_size=30)
)
def test_numbers_and_times(values: list[bytes], stamps: list[bytes]) -> None:
    """Every value and every time is what the full grammar makes of it, to the bit."""
    lines = [
        b"m,cluster=c,host=h value=%b %b\n" % pair
        for pair in zip(values, itertools.cycle(stamps), strict=False)
    ]
    assert bare(expect(b"".join(lines))) == Bench().scan(b"".join(lines))


def test_numbers_next_to_the_middle() -> None:
    """Numbers that would go astray by the least error go to the right side."""
    chance = random.Random(4)
    values = [
        near_midpoint(
            chance.randrange(0x2A800000, 0x7F7FFFFF), chance.choice([15, 16, 16, 17, 17, 18, 19]),
            chance.randint(-1, 1), chance.choice(["e", "e.", "f"]),
        )
        for _ in range(50 * EXAMPLES)
    ]  # fmt: skip
    lines = b"".join(b"m,cluster=c,host=h value=%b 5\n" % value for value in values)
    assert bare(expect(lines)) == Bench().scan(lines)
