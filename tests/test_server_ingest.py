"""The intake: a ledger that closes, limits, turns for others, and messages of NATS."""

import json
import logging
from array import array
from collections.abc import Sequence

import numpy as np
import pytest
import trio
from apiserver import make_config, warm_up
from hypercorn.typing import ASGIReceiveEvent
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from wire_lines import messages as lines_of_a_message
from wire_lines import thorough
from wire_oracle import METRICS, NOW, expect

from ccstore.model import Outcome
from ccstore.server import ingest
from ccstore.server.api import answer_pieces
from ccstore.server.body import BodyBlocks, RequestBody
from ccstore.server.ledger import OUTCOMES, Ledger
from ccstore.server.services import Services, make_services
from ccstore.wire.nats_message import Envelope, Messages, Subscription
from ccstore.wire.query import decode_query

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

SPARE = bytes(64)


def make(**limits: int) -> Services:
    """Make the parts of a server that is never served."""
    warm_up()
    return make_services(make_config(METRICS, limits=limits), now=lambda: NOW)


def body_of(pieces: Sequence[bytes], *, cut: bool = False, block_bytes: int = 512 * 1024) -> BodyBlocks:
    """Make a body that comes in these pieces, and then ends or is cut."""
    messages: list[ASGIReceiveEvent] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages.append(
        {"type": "http.disconnect"} if cut else {"type": "http.request", "body": b"", "more_body": False}
    )
    left = iter(messages)

    async def receive() -> ASGIReceiveEvent:
        await trio.lowlevel.checkpoint()
        return next(left)

    body = RequestBody(receive, None)
    body._first_arrived.set()  # there is no task of Quart that fetches the first piece
    return BodyBlocks(body, limit_bytes=2**30, block_bytes=block_bytes)


def messages_of(*payloads: bytes, clusters: Sequence[str] = ("",)) -> Messages:
    """Make messages as the NATS client hands them on, the default clusters in turn."""
    segment = bytearray(b"\r\n".join(payloads) + SPARE)
    messages, start = Messages(memoryview(segment)), 0
    for number, payload in enumerate(payloads):
        subscription = Subscription(f"hpc.{number}", clusters[number % len(clusters)])
        messages.envelopes.append(Envelope(subscription.subject, subscription, "", 0, len(payload)))
        messages.starts += array("q", [start])
        messages.stops += array("q", [start + len(payload)])
        start += len(payload) + 2
    return messages


def by_source(ledger: Ledger) -> dict[str, dict[Outcome, int]]:
    """Return the counts of each source."""
    counts: dict[str, dict[Outcome, int]] = {}
    for source, outcome, lines in ledger:
        counts.setdefault(source, {})[outcome] = lines
    return counts


WITH_SAMPLE = {Outcome.STORED, Outcome.OVERWRITTEN, Outcome.LATE, Outcome.FUTURE}


def check(counts: dict[Outcome, int], expected: Sequence[Outcome | None]) -> None:
    """Check the counts of a source against what the grammar says of each line; None has a sample."""
    received = [outcome for outcome in expected if outcome is not Outcome.BLANK]
    assert sum(counts.values()) == len(received)
    assert sum(counts[outcome] for outcome in WITH_SAMPLE) == received.count(None)
    for outcome in set(OUTCOMES) - WITH_SAMPLE:
        assert counts[outcome] == received.count(outcome)


clusters = st.sampled_from(["", "def", "c", "bad/name"])


@thorough
@given(
    st.lists(lines_of_a_message(), min_size=1, max_size=4),
    clusters,
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([1024, 128 * 1024]),
)
def test_the_ledger_closes_for_bodies(
    bodies: list[list[bytes]], default: str, piece: int, block_bytes: int, longest: int
) -> None:
    """However a body is cut, its lines are counted once each, as what the grammar makes of them."""

    async def main() -> None:
        services, expected = make(max_line_length_bytes=longest), []
        for lines in bodies:
            text = b"".join(lines)
            rows = expect(text, default_cluster=default, longest=longest)
            expected += [row.outcome for row in rows]
            pieces = [text[k : k + piece] for k in range(0, len(text), piece)]
            written = await services.intake.write_body(
                lambda pieces=pieces: body_of(pieces, block_bytes=block_bytes), default_cluster=default
            )
            assert written.ended_by is None
            assert written.lines == len(rows)
            assert written.rejected == sum(
                row.outcome in (Outcome.BAD_LINE, Outcome.REFUSED_COMPONENT, Outcome.LIMIT) for row in rows
            )
            told = {(reject.line, reject.outcome) for reject in written.rejects}
            assert told <= {(number, row.outcome) for number, row in enumerate(rows, 1)}
        check(by_source(services.ledger).get("http", dict.fromkeys(OUTCOMES, 0)), expected)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@thorough
@given(
    st.lists(lines_of_a_message(), min_size=1, max_size=6),
    st.lists(clusters, min_size=1, max_size=3),
    st.lists(lines_of_a_message(), max_size=2),
)
def test_the_ledger_closes_for_messages(
    messages: list[list[bytes]], defaults: list[str], bodies: list[list[bytes]]
) -> None:
    """The same for NATS, with the default cluster of each message, while others come over HTTP."""

    async def main() -> None:
        services, ours, theirs = make(), [], []
        payloads = [b"".join(lines) for lines in messages]
        for number, payload in enumerate(payloads):
            rows = expect(payload, default_cluster=defaults[number % len(defaults)])
            ours += [row.outcome for row in rows]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(services.intake.write_messages, messages_of(*payloads, clusters=defaults))
            for lines in bodies:
                text = b"".join(lines)
                theirs += [row.outcome for row in expect(text)]
                nursery.start_soon(write, services, text)
        nothing = dict.fromkeys(OUTCOMES, 0)
        counts = by_source(services.ledger)
        check(counts.get("nats", nothing), ours)
        check(counts.get("http", nothing), theirs)
        total = services.ledger.total()
        assert total["received"] == sum(sum(of_source.values()) for of_source in counts.values())

    async def write(services: Services, text: bytes) -> None:
        await services.intake.write_body(lambda: body_of([text]), default_cluster="")

    trio.run(main, clock=MockClock(autojump_threshold=0))


# --- limits


def new_hosts(*numbers: int) -> bytes:
    """Write one line for each of some hosts."""
    return b"".join(b"m,cluster=c,hostname=h%d value=1 1000\n" % number for number in numbers)


async def write_text(services: Services, text: bytes) -> dict[str, int]:
    """Write a body; return what the ledger has gained."""
    before = services.ledger.total()
    await services.intake.write_body(lambda: body_of([text]), default_cluster="")
    after = services.ledger.total()
    return {name: after[name] - before[name] for name in after if after[name] > before[name]}


async def test_new_series_per_second(mock_clock: MockClock) -> None:
    """Only so many are made in a second; lines of known series are stored all the time."""
    services = make(new_series_per_second=100)
    assert await write_text(services, new_hosts(*range(150))) == {"received": 150, "stored": 100, "limit": 50}
    assert await write_text(services, new_hosts(*range(150))) == {
        "received": 150, "overwritten": 100, "limit": 50
    }  # fmt: skip
    mock_clock.jump(0.3)
    assert await write_text(services, new_hosts(*range(150))) == {
        "received": 150, "stored": 30, "overwritten": 100, "limit": 20
    }  # fmt: skip
    mock_clock.jump(1000)
    assert (await write_text(services, new_hosts(*range(1000, 1150))))["stored"] == 100
    assert len(services.store.hosts("c")) == 230


async def test_no_limit_of_new_series() -> None:
    """0 means any number."""
    services = make(new_series_per_second=0)
    assert await write_text(services, new_hosts(*range(5000))) == {"received": 5000, "stored": 5000}


@pytest.mark.parametrize("limit", [1, 7, 100, 5000])
async def test_max_series(limit: int) -> None:
    """What does not fit is counted, leaves no place behind, and what fits goes on."""
    services = make(max_series=limit)
    gained = await write_text(services, new_hosts(*range(6000)))
    assert gained == {"received": 6000, "stored": limit, "limit": 6000 - limit}
    statistics = services.store.statistics()
    assert (statistics.series, statistics.hosts) == (limit, limit)
    assert await write_text(services, new_hosts(*range(limit))) == {"received": limit, "overwritten": limit}
    assert await write_text(services, new_hosts(99_999)) == {"received": 1, "limit": 1}
    assert services.store.statistics() == statistics


async def test_limits_together() -> None:
    """The smaller one of both holds, and each line has one outcome."""
    services = make(new_series_per_second=10, max_series=25)
    stored = 0
    for _ in range(4):
        gained = await write_text(services, new_hosts(*range(100)))
        stored += gained.get("stored", 0)
        assert sum(gained.values()) == 2 * gained["received"]
        assert services.store.statistics().hosts == stored
    assert 10 <= stored <= 25


async def test_refused_lines_are_explained() -> None:
    """Over HTTP they do not change the status, so the details have to tell."""
    services = make(max_series=1)
    written = await services.intake.write_body(lambda: body_of([new_hosts(1, 2, 3)]), default_cluster="")
    assert (written.stored, written.rejected, written.ended_by) == (1, 2, None)
    assert [(reject.line, reject.outcome, reject.reason) for reject in written.rejects] == [
        (2, Outcome.LIMIT, "too many new series"),
        (3, Outcome.LIMIT, "too many new series"),
    ]


# --- others, and the end


def stored_samples(services: Services) -> int:
    """Count the samples of host h: each line below has a slot of its own."""
    place = services.store.locate(("c", "h"), create=False)
    live = services.store.series_at(place) if place >= 0 else ()
    return sum(chunk.used for _, series in live for chunk in services.store.chunks(series))


@pytest.mark.parametrize("source", ["http", "nats"])
async def test_a_writer_that_is_cancelled(source: str) -> None:
    """At whatever step that hits, every line is stored and counted, or neither."""
    text = b"".join(b"m,cluster=c,hostname=h value=1 %d\n" % (1000 + 60 * k) for k in range(50_000))
    counts = []
    for turns in range(20):
        services = make()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if source == "http":
                    nursery.start_soon(write_text, services, text)
                else:
                    nursery.start_soon(services.intake.write_messages, messages_of(text))
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        total = services.ledger.total()
        assert total["received"] == total["stored"] == stored_samples(services)
        counts.append(total["stored"])
    assert counts == sorted(counts)
    assert len(set(counts)) >= 4


async def test_writers_share_the_columns_of_a_step() -> None:
    """Steps of many writers alternate, and no sample gets into another one's series."""
    services = make()
    values = 3000

    async def write(number: int) -> None:
        text = b"".join(
            b"m,cluster=c,hostname=h%d value=%d %d\n" % (number, number, 1000 + 60 * k) for k in range(values)
        )
        pieces = [text[k : k + 1000] for k in range(0, len(text), 1000)]
        await services.intake.write_body(lambda: body_of(pieces, block_bytes=5000), default_cluster="")

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(write, number)
    assert services.ledger.total()["stored"] == 10 * values
    queries = [{"metric": "m", "host": f"h{number}"} for number in range(10)]
    asked = {"cluster": "c", "from": 0, "to": 10**6, "with-padding": False, "queries": queries}
    pieces = answer_pieces(services, decode_query(json.dumps(asked).encode()))
    for number, (row,) in enumerate(json.loads(b"".join([piece async for piece in pieces]))["results"]):
        assert row["data"] == [number] * values


# --- what is logged


async def test_bad_messages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each, with subject, line and reason, as text and as fields."""
    services = make()
    bad = b"m,cluster=c,hostname=h value=1 1000\nm,cluster=c,hostname=h value=x\nm,cluster=/ value=1\n"
    await services.intake.write_messages(messages_of(b"m,cluster=c,hostname=g value=1\n", bad, bad))
    first, second = caplog.records
    assert first.getMessage().startswith("nats: message on hpc.1: line 2: ")
    assert first.getMessage().endswith(" (and 1 or more lines)")
    assert second.args["subject"] == "hpc.2"
    assert second.args["line"] == 2
    assert services.ledger.total() == dict.fromkeys(services.ledger.total(), 0) | {
        "received": 7, "stored": 2, "overwritten": 1, "bad_line": 2, "refused_component": 2
    }  # fmt: skip


async def test_names_of_unknown_metrics_are_told(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first of each name, however it is spelt, a look a second, and never more than so many."""
    services = make()
    caplog.set_level(logging.INFO, "ccstore.ingest")
    known = services.intake.unknown_metrics

    async def write(*lines: bytes) -> None:
        mock_clock.jump(1)
        await services.intake.write_messages(messages_of(b"\n".join(lines)))

    await write(
        b"m,cluster=c,hostname=h value=1",
        b"other,hostname=h value=1",
        b"b\\ d value=1",
        b"other value=x",
        b"#",
    )
    assert list(known) == ["b d", "other"]
    await services.intake.write_messages(messages_of(b"third value=1"))  # too soon
    assert list(known) == ["b d", "other"]
    await write(b"other value=1")
    await write(b"third value=1", b"x" * 1000 + b" value=1", b'"" value=1')
    assert list(known) == ["b d", "other", '""', "third"]
    assert [record.getMessage() for record in caplog.records] == [
        "metrics that are not configured, and not stored: 'b d', 'other'",
        "metrics that are not configured, and not stored: '\"\"', 'third'",
    ]
    for hundred in range(2):
        await write(*[b"n%d value=1" % number for number in range(100 * hundred, 100 * hundred + 100)])
    assert len(known) == ingest.MAX_UNKNOWN
    assert services.ledger.total()["unknown_metric"] == 208


async def test_good_messages_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nor are unknown metrics, which are part of every site."""
    services = make()
    await services.intake.write_messages(
        messages_of(
            b"unknown,a=b value=1\nm,hostname=h value=1\n", b"m,hostname=h value=2", clusters=["a", "b"]
        )
    )
    assert caplog.records == []
    assert (services.store.hosts("a"), services.store.hosts("b")) == (["h"], ["h"])


def test_the_ledger_never_goes_back() -> None:
    """Counts are added to those of their source alone."""
    ledger = Ledger()
    one = np.zeros(len(Outcome), np.int64)
    one[Outcome.LATE] = one[Outcome.BLANK] = 2
    ledger.add("http", one)
    ledger.add("nats", one)
    ledger.add("http", one)
    assert one[Outcome.LATE] == 2
    assert ledger.total() == dict.fromkeys(ledger.total(), 0) | {"late": 6, "received": 6}
    assert [(source, lines) for source, outcome, lines in ledger if outcome is Outcome.LATE] == [
        ("http", 4),
        ("nats", 2),
    ]
    assert list(ledger.total()) == ["received", *(outcome.name.lower() for outcome in OUTCOMES)]
