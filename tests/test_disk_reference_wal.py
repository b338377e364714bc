"""The reference's log: what is written, what is read, and where reading stops."""

import math
import struct
import zlib

import numpy as np
import pytest
from disk_reference import (
    FILE_MAGIC,
    GOLDEN,
    NAN_BITS,
    Sample,
    framed,
    identity,
    log_of,
    name_all,
    names,
    plain,
    record,
    samples_of,
    series_of,
    spell,
    times,
    values,
)
from hypothesis import given
from hypothesis import strategies as st

from ccstore.disk.reference.wal import LogEncoder, decode_log
from ccstore.model import Names, Samples

LOAD = (("socket0",), "cpu_load", 1_700_000_000, 1.5)
LOAD_BYTES = """
    a1 a7 1d cc 1f 00 00 00 00 f1 53 65 00 00 00 00
    08 00 63 70 75 5f 6c 6f 61 64 01 07 73 6f 63 6b
    65 74 30 00 00 c0 3f 28 0d ba bb
"""
NOTHING = ((), "m", -1, math.nan)
NOTHING_BYTES = """
    a1 a7 1d cc 10 00 00 00 ff ff ff ff ff ff ff ff
    01 00 6d 00 00 00 c0 7f 96 61 55 08
"""
SOME = [LOAD, NOTHING, (("s", "m1"), "x", 5, -0.0), LOAD, (("socket0",), "cpu_load", 7, math.inf), NOTHING]

SHAPE = "names that do not fill the record, or of more than 2 places"

rows = st.tuples(st.lists(names, max_size=2).map(tuple), names, times, values)


def decode(data):
    return decode_log(data, cluster="c", host="h")


def read(data):
    log = decode(data)
    assert len(data) == log.good_bytes + log.bad_bytes
    assert bool(log.bad_bytes) == bool(log.reason)
    return spell(log.names, log.samples)


def write(samples: list[Sample]) -> bytes:
    """Write samples of one host."""
    series = list(dict.fromkeys((("c", "h", *places), metric, 60) for places, metric, _, _ in samples))
    encoder = LogEncoder()
    encoder.learn(name_all(series))
    numbers = [series.index((("c", "h", *places), metric, 60)) for places, metric, _, _ in samples]
    columns = samples_of([(n, time, value) for n, (_, _, time, value) in zip(numbers, samples, strict=True)])
    return b"".join(bytes(data) for _, data in encoder.encode(columns))


@pytest.mark.parametrize(("sample", "text"), [(LOAD, LOAD_BYTES), (NOTHING, NOTHING_BYTES)])
def test_worked_records(sample: Sample, text: str) -> None:
    """The two records of the description are written and read to the byte."""
    data = bytes.fromhex(text)
    assert data == record(sample)
    assert data == write([sample])
    assert plain([sample]) == read(FILE_MAGIC + data)


def test_golden_log() -> None:
    """The golden log is read, and written again the same."""
    data = (GOLDEN / "current.wal").read_bytes()
    assert plain(SOME) == read(data)
    assert data == FILE_MAGIC + write(SOME)


@given(st.lists(rows, max_size=12), st.data())
def test_round_trip(pool: list[Sample], data: st.DataObject) -> None:
    """What is written equals what is written record by record, and reads back."""
    picked = data.draw(st.lists(st.sampled_from(pool), max_size=40)) if pool else []
    expected = log_of(picked)
    assert expected == FILE_MAGIC + write(picked)
    assert plain(picked) == read(expected)


@pytest.mark.parametrize("size", range(40))
def test_identities_of_every_length(size: int) -> None:
    """The last word of a name is right wherever it ends."""
    sample = ((), "abcdefgh" * 5, 2**40 + 3, 0.1)
    sample = (*sample[:1], sample[1][:size], *sample[2:])
    assert record(sample) * 2 == write([sample, sample])
    expected = [(*sample[:3], float(np.float32(0.1)))] * 2
    assert expected == read(log_of([sample, sample]))


def test_place_zero_is_the_cluster_and_one_the_host() -> None:
    """Names begin with the directories around the log; frequencies are not known."""
    log = decode(log_of(SOME))
    expected = [(("c", "h", "socket0"), "cpu_load", 0), (("c", "h"), "m", 0), (("c", "h", "s", "m1"), "x", 0)]
    assert expected == series_of(log.names)
    assert log.names.parents[:2].tolist() == [-1, 0]


def test_thousands_of_series() -> None:
    """The table of series grows, and everything is found in it again, in any order."""
    samples = [((f"p{k % 7}",), f"metric{k}", k, float(k)) for k in range(5000)]
    turned = samples + samples[::-1] + samples[::3]
    log = decode(log_of(turned))
    assert turned == spell(log.names, log.samples)
    assert len(log.names.series_places) == 5000


@pytest.mark.parametrize("at", [0, 7, 8, 15, 17])
def test_names_that_differ_in_one_place(at: int) -> None:
    """Names of one length are told apart wherever they differ."""
    metrics = ["m" * at + letter + "m" * (17 - at) for letter in "abcab"]
    samples = [((), metric, k, float(k)) for k, metric in enumerate(metrics)]
    assert samples == read(log_of(samples))
    assert samples == read(FILE_MAGIC + write(samples))


def test_names_with_the_same_checksum() -> None:
    """Two series whose names have the same checksum are two series."""
    first, second = "mYYWIMAA", "m7BTC173"
    assert zlib.crc32(identity([], first.encode())) == zlib.crc32(identity([], second.encode()))
    samples = [((), first, 1, 1.0), ((), second, 2, 2.0), ((), first, 3, 3.0)]
    assert samples == read(log_of(samples))


# --- writing


def test_records_are_sorted_by_host() -> None:
    """Each host gets its own records in their order, and a host without samples nothing."""
    encoder = LogEncoder()
    series = [
        (("c", host, *below), metric, 60) for host in "abd" for below in ((), ("s",)) for metric in "xy"
    ]
    encoder.learn(name_all(series))
    picked = [0, 9, 1, 3, 9, 0, 11, 2]
    columns = samples_of([(number, 100 + k, k) for k, number in enumerate(picked)])
    for _ in range(2):
        written = {place: bytes(data) for place, data in encoder.encode(columns)}
        expected = {
            place: b"".join(
                record((series[number][0][2:], series[number][1], 100 + k, float(k)))
                for k, number in enumerate(picked)
                if series[number][0][1] == host
            )
            for place, host in ((1, "a"), (3, "d"))
        }
        assert expected == written


def test_names_are_learned_bit_by_bit() -> None:
    """Later names continue the numbers of earlier ones, also below places that are known."""
    encoder = LogEncoder()
    series = [(("c", "h"), "a", 1), (("c", "h", "s"), "a", 1), (("c", "i", "t"), "b", 1)]
    everything = name_all(series)
    assert list(everything.place_names) == ["c", "h", "i", "s", "t"]
    steps = [((0, 2), (0, 1), (0, 1)), ((2, 5), (1, 2), (1, 3)), ((5, 5), (2, 2), (3, 3))]
    for places, metrics, taken in steps:
        encoder.learn(
            Names(
                everything.parents[slice(*places)],
                everything.place_names[slice(*places)],
                everything.metric_names[slice(*metrics)],
                everything.frequencies[slice(*metrics)],
                everything.series_places[slice(*taken)],
                everything.series_metrics[slice(*taken)],
            )
        )
    written = [
        (place, bytes(data)) for place, data in encoder.encode(samples_of([(2, 9, 9), (1, 8, 8), (0, 7, 7)]))
    ]
    host = record((("s",), "a", 8, 8.0)) + record(((), "a", 7, 7.0))
    assert [(1, host), (2, record((("t",), "b", 9, 9.0)))] == written


def test_nothing_to_write() -> None:
    """Without samples nothing is written, also before any name is known."""
    assert LogEncoder().encode(samples_of([])) == []


@pytest.mark.parametrize("number", [-1, 1])
def test_numbers_that_were_not_learned(number: int) -> None:
    """A number that no series has is a mistake of ours, and found before anything is written."""
    encoder = LogEncoder()
    encoder.learn(name_all([(("c", "h"), "m", 60)]))
    with pytest.raises(AssertionError):
        encoder.encode(samples_of([(0, 0, 0), (number, 0, 0)]))


@pytest.mark.parametrize("path", [("c",), ("c", "h", "x" * 256)])
def test_what_no_record_can_name(path: tuple[str, ...]) -> None:
    """A series of a cluster, or a longer place name, is a mistake of ours."""
    with pytest.raises(AssertionError):
        LogEncoder().learn(name_all([(path, "m", 60)]))


@pytest.mark.parametrize("bits", [NAN_BITS, NAN_BITS | 1 << 31, 0x7F800001, 0xFFFFFFFF, 0x7FC12345])
def test_every_nan_is_one(bits: int) -> None:
    """Whatever its bits, NaN is read as NaN and written as one pattern."""
    value = np.array([bits], np.uint32).view(np.float32)
    encoder = LogEncoder()
    encoder.learn(name_all([(("c", "h"), "m", 60)]))
    columns = Samples(np.zeros(1, np.int32), np.zeros(1, np.int64), value)
    ((_, written),) = encoder.encode(columns)
    assert record(((), "m", 0, math.nan)) == bytes(written)
    payload = struct.pack("<q", 0) + identity([], b"m") + struct.pack("<I", bits)
    assert read(FILE_MAGIC + framed(payload)) == [((), "m", 0, None)]


# --- where reading stops


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", ""),
        (b"\x01", "byte 0: torn magic number (1 bytes, wanted 4)"),
        (FILE_MAGIC[:3], "byte 0: torn magic number (3 bytes, wanted 4)"),
        (b"\x02", "byte 0: not a log of the reference (got '02', wanted '01a71dcc')"),
        (b"junk" + record(LOAD), "byte 0: not a log of the reference (got '6a756e6b', wanted '01a71dcc')"),
        (bytes(100), "byte 0: not a log of the reference (got '00000000', wanted '01a71dcc')"),
    ],
)
def test_files_that_do_not_begin_as_logs(data: bytes, reason: str) -> None:
    """An empty file is good; without the whole magic number nothing is, and the log is begun anew."""
    log = decode(data)
    assert (0, len(data), reason) == (log.good_bytes, log.bad_bytes, log.reason)
    assert spell(log.names, log.samples) == []


def test_torn_at_every_byte() -> None:
    """All whole records before a cut are read, and what is appended behind the good ones is found."""
    data = log_of(SOME)
    ends = [len(log_of(SOME[:k])) for k in range(len(SOME) + 1)]
    for cut in range(4, len(data)):
        for rest in (b"", bytes(40), b"\xff" * 40, data[:50], b"\0" + record(LOAD)):
            log = decode(data[:cut] + rest)
            whole = max(k for k, end in enumerate(ends) if end <= cut)
            assert plain(SOME[:whole]) == spell(log.names, log.samples)
            assert ends[whole] == log.good_bytes
            assert plain([*SOME[:whole], LOAD]) == read(data[: log.good_bytes] + record(LOAD))


def test_a_flipped_bit_at_every_byte() -> None:
    """Damage is found: the records before are read, and nothing that was not written."""
    data = log_of(SOME[:3])
    ends = [len(log_of(SOME[:k])) for k in range(4)]
    for at in range(4, len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            log = decode(bytes(damaged))
            whole = max(k for k, end in enumerate(ends) if end <= at)
            assert plain(SOME[:whole]) == spell(log.names, log.samples)
            assert (ends[whole], True) == (log.good_bytes, log.reason.startswith(f"byte {ends[whole]}: "))


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"abc", "torn record (3 bytes, wanted 27)"),
        (b"abcd", "no record (got '61626364', wanted 'a1a71dcc')"),
        (record(LOAD)[:20], "torn record (20 bytes, wanted 43)"),
        (record(LOAD)[:-1], "torn record (42 bytes, wanted 43)"),
        (record(LOAD)[:-1] + b"\0", "checksum mismatch (stored 0x00ba0d28)"),
        (framed(bytes(14)) + bytes(9), "payload of 14 bytes (wanted 15 to 1048576)"),
        (framed(bytes(2**20 + 1)), "payload of 1048577 bytes (wanted 15 to 1048576)"),
        (record(LOAD)[:4] + b"\xff" * 30, "payload of 4294967295 bytes (wanted 15 to 1048576)"),
        (framed(bytes(16)), SHAPE),
        (
            framed(bytes(8) + b"\x01\0\0" + bytes(4)),
            SHAPE,
        ),
        (
            framed(bytes(8) + b"\xff\xff\0" + bytes(4)),
            SHAPE,
        ),
        (
            framed(bytes(8) + b"\0\0\x02\0" + bytes(4)),
            SHAPE,
        ),
        (
            framed(bytes(8) + b"\0\0\x01\x02a" + bytes(4)),
            SHAPE,
        ),
    ],
)
def test_why_reading_stops(tail: bytes, reason: str) -> None:
    """The first bad byte is named, with what is wrong there."""
    good = log_of(SOME[:2])
    log = decode(good + tail + record(LOAD))
    if not reason.startswith("torn"):
        assert (len(good), f"byte {len(good)}: {reason}") == (log.good_bytes, log.reason)
    log = decode(good + tail)
    assert (len(good), len(tail), f"byte {len(good)}: {reason}") == (
        log.good_bytes,
        log.bad_bytes,
        log.reason,
    )


def test_the_shortest_and_the_longest_names() -> None:
    """Records of empty names, and of names as long as their lengths can say, are read."""
    longest = identity([b"x" * 255, b"y" * 255], b"m" * 65_535)
    payloads = [bytes(8) + identity([], b"") + bytes(4), bytes(8) + longest + bytes(4)]
    log = decode(FILE_MAGIC + b"".join(map(framed, payloads)))
    assert (log.reason, len(log.samples.numbers)) == ("", 2)
    found = series_of(log.names)
    assert found == [(("c", "h"), "", 0), (("c", "h", "x" * 255, "y" * 255), "m" * 65_535, 0)]


def test_names_that_are_no_text() -> None:
    """Bytes that are no UTF-8 are replaced, and what follows is read."""
    payload = bytes(8) + identity([b"\xff"], b"a\xc3") + bytes(4)
    expected = [(("�",), "a�", 0, 0.0), ((), "m", -1, None)]
    assert expected == read(FILE_MAGIC + framed(payload) + record(NOTHING))


@given(st.binary(max_size=300), st.booleans())
def test_garbage(data: bytes, checked: bool) -> None:
    """Whatever lies behind the magic number, with a right checksum or not, reading ends well."""
    log = decode(FILE_MAGIC + record(LOAD) + (framed(data) if checked else data))
    found = spell(log.names, log.samples)
    assert plain([LOAD]) == found[:1]
    assert (len(found) > 1) == (checked and not log.reason)


def test_views_are_read_as_well() -> None:
    """A log may be a read-only view of a part of something longer."""
    data = log_of(SOME)
    view = memoryview(b"123" + data + b"456")[3:-3]
    assert plain(SOME) == read(view)
