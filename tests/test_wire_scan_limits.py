"""Limits on lines and series, and what must not show: steps, several messages, full caches."""

import itertools

import numpy as np
import pytest
from wire_oracle import MANY, NOW, Bench, Row, check, expect, reasons, sample

from ccstore.model import Metric, Outcome
from ccstore.wire.kernels import lines as kernels
from ccstore.wire.scan import MAX_REJECTS, Scan

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

BAD, REFUSED, UNKNOWN = Row(Outcome.BAD_LINE), Row(Outcome.REFUSED_COMPONENT), Row(Outcome.UNKNOWN_METRIC)
BLANK, LIMIT = Row(Outcome.BLANK), Row(Outcome.LIMIT)
GOOD = sample(1, 5, "c", "h")


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"m,cluster=c,host=h,x=%b value=1 5" % (b"y" * 69), GOOD),
        (b"m,cluster=c,host=h,x=%b value=1 5" % (b"y" * 70), LIMIT),
        (b"unk,x=%b value=1 5" % (b"y" * 90), LIMIT),
        (b"unk," + b"y" * 100, LIMIT),
        (b"#" * 101, LIMIT),
        (b" " * 101, LIMIT),
        (b"m,cluster=c,host=h,x=%b value=1 5\r" % (b"y" * 68), GOOD),
        (b"m,cluster=c,host=h,x=%b value=1 5\r" % (b"y" * 69), LIMIT),
        (b'm,cluster=c,host=h value="%b"' % (b"y" * 200), LIMIT),
        (b'm,cluster=c,host=h value="\n%b" 5' % (b"y" * 67), BAD),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b""])
def test_long_lines(line: bytes, row: Row, end: bytes) -> None:
    """A line of more bytes than the limit is not looked at, be its key known or its measurement unknown."""
    known = b"m,cluster=c,host=h value=1 5\n"
    check(known + line + end, [GOOD, row], longest=100)


def test_long_lines_with_a_known_key() -> None:
    """The limit holds for the whole line also where the fast pass knows its key."""
    bench = Bench(longest=40)
    key = b"m,cluster=c,hostname=host0123"
    assert [sample(1, 5, "c", "host0123"), LIMIT] == bench.scan(
        key + b" value=1 5\n" + key + b" value=1.000\n"
    )
    assert bench.rejects[0].reason == "line of 41 bytes"


def test_a_string_that_goes_on_for_too_long() -> None:
    """A string is looked at up to the limit; beyond it, it was never closed."""
    text = b'm,cluster=c,host=h value="\n%b" 5\n' % (b"y" * 100)
    check(text + b"m,cluster=c,host=h value=1 5\n", [BAD, LIMIT, GOOD], longest=100)
    message = b'm,cluster=c,host=h value="\n%b",value=7777 5\n' % (b"y" * 65)  # cut behind the first 7
    check(message + b"m,cluster=c,host=h value=1 5\n", [LIMIT, UNKNOWN, GOOD], longest=100)


def test_new_series_beyond_the_allowance() -> None:
    """Just as many series are made as allowed, known ones go on, and what lies beyond leaves no trace."""
    bench = Bench()
    lines = [b"m,cluster=c,host=h%d value=1 5\n" % k for k in range(5)]
    assert [sample(1, 5, "c", "h0")] == bench.scan(lines[0], allowance=1)
    rows = bench.scan(b"".join(lines), allowance=2)
    assert [sample(1, 5, "c", f"h{k}") for k in range(3)] + [LIMIT, LIMIT] == rows
    assert (bench.made, [reject.reason for reject in bench.rejects]) == (2, ["too many new series"] * 2)
    assert [bench.store.locate(("c", f"h{k}"), create=False) >= 0 for k in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert [LIMIT, sample(1, 5, "c", "h1")] == bench.scan(lines[4] + lines[1], allowance=0)
    assert [sample(1, 5, "c", f"h{k}") for k in range(5)] == bench.scan(b"".join(lines), allowance=2)


def test_places_beyond_the_allowance() -> None:
    """A line with a quote, which is looked at alone, leaves no trace either."""
    bench = Bench()
    assert bench.scan(b'm,cluster=c,host=a\\ "b value=1 5\n', allowance=0) == [LIMIT]
    assert bench.store.locate(("c", 'a "b'), create=False) == -1
    assert [sample(1, 5, "c", 'a "b')] == bench.scan(b'm,cluster=c,host=a\\ "b value=1 5\n', allowance=1)


def test_the_allowance_is_for_series_not_for_lines() -> None:
    """Other spellings of known series, bad lines and refused ones take nothing of the allowance."""
    bench = Bench()
    bench.scan(b"m,cluster=c,host=h value=1 5\n")
    known = [b"m,cluster=c,host=h,x=%d value=1 5\n" % k for k in range(30)]
    other = [
        b"m,cluster=c,host=.. value=1 5\n",
        b"m,cluster=c,host=h value=x\n",
        b"plain,cluster=c,host=h value=1 5\n",
    ]
    new = [b"m,cluster=c,host=n%d value=1 5\n" % k for k in range(3)]
    rows = bench.scan(b"".join([*known, *other, *known, *new]), allowance=3)
    expected = [GOOD] * 30 + [REFUSED, BAD, GOOD._replace(metric="plain")] + [GOOD] * 30
    assert [*expected, sample(1, 5, "c", "n0"), sample(1, 5, "c", "n1"), LIMIT] == rows


def test_a_full_store() -> None:
    """Beyond the series that a store has room for, new ones are refused and known ones go on."""
    bench = Bench(max_series=2)
    message = b"".join(b"m,cluster=c,host=h%d value=1 5\n" % k for k in range(4))
    for _ in range(2):
        assert [sample(1, 5, "c", "h0"), sample(1, 5, "c", "h1"), LIMIT, LIMIT] == bench.scan(message)


# --- steps, messages, memory


def test_several_messages_in_one_buffer() -> None:
    """Each message ends at its stop, and a bad line is told by its message and its line there."""
    bench, line = Bench(), b"m,cluster=c,host=h value=1 5"
    messages = [line, b"", line + b"\nx\n\n" + line, b"m,cluster=c,host=h value=", b'm value="', b"\n\nx\n"]
    expected = [[GOOD], [], [GOOD, BAD, BLANK, GOOD], [BAD], [BAD], [BLANK, BLANK, BAD]]
    for _ in range(2):
        assert list(itertools.chain(*expected)) == bench.scan(*messages, junk=b"1 5\n12345678")
        told = [(reject.message, reject.line) for reject in bench.rejects]
        assert sorted(told) == [(2, 2), (3, 1), (4, 1), (5, 3)]


def test_rejects_say_why() -> None:
    """Each line that is bad, refused or beyond a limit is explained in the words of the full grammar."""
    message = (
        b"m,cluster=c,host=h value=x\nm,cluster=c,host=.. value=1\nunk x\nm,a value=1\n#\x01\n" + b" " * 200
    )
    bench, expected = Bench(longest=100), expect(message, longest=100)
    bench.scan(message)
    told = [(reject.line, reject.outcome, reject.reason) for reject in bench.rejects]
    assert told == reasons(expected, Outcome.BAD_LINE, Outcome.REFUSED_COMPONENT, Outcome.LIMIT)
    assert len(told) == 5


def test_only_some_rejects_are_told() -> None:
    """All bad lines are counted, the first of a step are explained."""
    bench = Bench()
    assert bench.scan(b"m,a value=1\n" * 100) == [BAD] * 100
    assert list(range(1, MAX_REJECTS + 1)) == [reject.line for reject in bench.rejects]


def test_many_more_lines_than_a_step_takes() -> None:
    """Messages are scanned in steps, and it does not show."""
    bench = Bench(max_keys=100_000, max_series=100_000)
    names = [(k % 7, k) for k in range(20_000)]
    message = b"".join(b"m,cluster=c%d,host=h%d value=%d 5\n" % (*name, name[1]) for name in names)
    expected = [sample(k, 5, f"c{c}", f"h{k}") for c, k in names]
    for _ in range(3):
        assert expected == bench.scan(message)


def steps_of(bench: Bench, message: bytes) -> list[tuple[int, int]]:
    """Return how many lines each step of a scan takes, and how many of them the kernel leaves to Python."""
    data = np.frombuffer(message + bytes(8), np.uint8)
    scan, steps = Scan(bench.scanner, data, np.array([0]), np.array([len(message)]), now=NOW), []
    while not scan.done:
        count = scan.step(allowance=MANY)[0].count
        steps.append((count, int(scan._progress[kernels.TODO])))
    return steps


def test_known_keys_need_no_python() -> None:
    """However a key is spelled, and whatever lies between, a line is left to Python only once."""
    tags = [b"", b",x=y", b",x=\\ y", b",x=\\,", b',x="', b",x=\xc3\xa4", b",x=\\y", b",type=node,stype=a"]
    lines = [name + b",cluster=c,host=h%b value=1 5\n" % tag for name in (b"m", b"plain") for tag in tags]
    bench, message = Bench(), b"".join(lines)
    assert sum(left for _, left in steps_of(bench, message)) == 16
    assert steps_of(bench, message) == steps_of(bench, b"".join(lines[::-1])) == [(16, 0)]


@pytest.mark.parametrize(
    ("line", "per_step"),
    [
        (b"m,cluster=c,host=h%d value=1 5\n", 512),  # new places
        (b"m,cluster=c,host=h,x=%d value=1 5\n", 512),  # new spellings
        (b"m,cluster=c,host=h value=x%d\n", 600),  # bad lines
        (b"m,cluster=c,host=h%d" + b",x=y" * 200 + b" value=1 5\n", 20),  # long lines
        (b"m,cluster=c,host=h" + b",x=y" * 200 + b",x=%d value=1 5\n", 20),  # without places
        (b'm,cluster=c,host=h event="%d"\n', 70),
        (b"unknown,x=%d" + b"y" * 5_000 + b" value=1 5\n", 220),
    ],
)  # fmt: skip
def test_steps_are_short(line: bytes, per_step: int) -> None:
    """A step ends after some hundred new or odd lines, and earlier if these are long."""
    bench = Bench(max_keys=10_000, max_series=10_000)
    message = b"".join(line % k for k in range(700))
    steps = steps_of(bench, message)
    assert sum(count for count, _ in steps) == 700
    assert max(count for count, _ in steps) <= per_step


def test_steps_are_short_where_nothing_can_be_learned() -> None:
    """Lines that are alike are not put off together, because each of them may turn out to be odd."""
    line = b"m,cluster=c,host=h" + b",x=y" * 200 + b" value=1 5\n"
    assert 20 < steps_of(Bench(), line * 2000)[0][0] <= 80


def test_a_scan_of_nothing() -> None:
    """Without messages there is nothing to do."""
    bench = Bench()
    nothing = np.empty(0, np.int64)
    assert Scan(bench.scanner, np.empty(0, np.uint8), nothing, nothing, now=0).done
    assert [] == bench.scan(b"") == bench.scan(b"", b"", b"")


def test_a_block_without_a_whole_line() -> None:
    """A block that holds no newline is left as it is, from its own beginning."""
    bench, text = Bench(), np.frombuffer(b"xxxxm,cluster=c,host=h value=1 5\n" + bytes(8), np.uint8)
    scan = Scan(bench.scanner, text, np.array([4]), np.array([20]), now=NOW, final=False)
    batch, _ = scan.step(allowance=MANY)
    assert (batch.count, scan.position, scan.done) == (0, 4, True)


def test_two_scans_at_once() -> None:
    """Scans of one scanner may take turns step by step, as messages from several connections do."""
    bench = Bench(rows=3)
    texts = [
        b"".join(b"m,cluster=%d,host=h%d value=1 5\n" % (k, j) for j in range(10)) + b"x\n" for k in range(2)
    ]
    scans = [
        Scan(
            bench.scanner,
            np.frombuffer(text + bytes(8), np.uint8),
            np.array([0]),
            np.array([len(text)]),
            now=NOW,
        )
        for text in texts * 2
    ]
    rows: list[list[Row]] = [[] for _ in scans]
    while not all(scan.done for scan in scans):
        for scan, into in zip(scans, rows, strict=True):
            if not scan.done:
                batch, _ = scan.step(allowance=MANY)
                into += [bench._row(k, batch.series, batch) for k in range(batch.count)]
    expected = [[sample(1, 5, str(k), f"h{j}") for j in range(10)] + [BAD] for k in range(2)]
    assert expected * 2 == rows


def test_forgotten_places() -> None:
    """After places were pruned, tags lead to new ones."""
    bench = Bench()
    line = b"m,cluster=c,host=h value=1 5\nplain,cluster=c,host=h value=1 5\n"
    expected = [GOOD, GOOD._replace(metric="plain")]
    assert expected == bench.scan(line)
    dead = bench.store.dormant()
    with bench.keys.forgetting(dead) as forgetting:
        while not forgetting.step():
            pass
        bench.store.prune(bench.store.index.root, forgetting.dead)
        bench.scanner.forget_places()
    assert bench.store.locate(("c", "h"), create=False) == -1
    assert len(bench.keys) == 0
    assert [sample(1, 5, "c", "other"), *expected] == bench.scan(b"m,cluster=c,host=other value=1 5\n" + line)


def test_metrics_with_long_names() -> None:
    """A metric may have a name that is too long to be remembered."""
    names = ["x" * 1024, "x" * 1025, "y" * 65_535]
    bench = Bench([Metric(name, 60) for name in names])
    message = "".join(f"{name},cluster=c,host=h value=1 5\n" for name in [*names, "x" * 1026]).encode()
    expected = [*(sample(1, 5, "c", "h", metric=name) for name in names), UNKNOWN]
    assert expected == bench.scan(message) == bench.scan(message)
