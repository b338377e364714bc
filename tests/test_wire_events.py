"""Event messages: each line is an event or has a reason not to be one, and costs nobody else anything."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.wire.events import Event, EventOutcome, Function, NoEvent, split_events
from ccstore.wire.lineprotocol import Text, is_field_value

JOBS = frozenset({"job"})
NODES = frozenset({"nodestate"})

START = rb'job,function=start_job event="{\"jobId\":1001}" 1700000000000000000'


def outcomes(payload: bytes, measurements: frozenset[str] = JOBS) -> list[str]:
    """Return for each line its function or its outcome."""
    return [
        found.function.value if isinstance(found, Event) else found.outcome.value
        for found in split_events(payload, measurements)
    ]


def test_the_lines_of_the_contract() -> None:
    """Both functions of jobs and the one of nodes, with their JSON as it was before it was escaped."""
    stop = START.replace(b"start", b"stop")
    nodes = rb'nodestate event="{\"cluster\":\"c\",\"nodes\":[]}" 1700000000000000000'
    assert list(split_events(START + b"\n" + stop + b"\n" + nodes, JOBS | NODES)) == [
        Event(1, Function.START_JOB, '{"jobId":1001}'),
        Event(2, Function.STOP_JOB, '{"jobId":1001}'),
        Event(3, Function.NODE_STATES, '{"cluster":"c","nodes":[]}'),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b"\n \r\n# comment\n", []),
        (START, ["start_job"]),
        (START.replace(b"1700000000000000000", b"1700000000"), ["start_job"]),
        (START.replace(b"1700000000000000000", b"-1"), ["start_job"]),
        (START.replace(b" 1700000000000000000", b""), ["bad_line"]),
        (START.replace(b"1700000000000000000", b"soon"), ["bad_line"]),
        (START.replace(b"1700000000000000000", b"9223372036854775808"), ["bad_line"]),
        (START.replace(b"}", b'}"'), ["bad_line"]),
        (START.replace(b" event=", b" x=NaN,event="), ["bad_line"]),
        (START.replace(b" event=", b" x=1e999,event="), ["bad_line"]),
        (START.replace(b" event=", b' x=1e300,y=T,z=3i,t="x",event='), ["start_job"]),
        (START.replace(b"start_job", b"restart_job"), ["unknown_function"]),
        (START.replace(b"start_job", b"nodestate"), ["unknown_function"]),
        (START.replace(b"start_job", b"START_JOB"), ["unknown_function"]),
        (START.replace(b",function=start_job", b""), ["no_function"]),
        (START.replace(b",function=start_job", b",a=b,function=start_job,cluster=c"), ["start_job"]),
        (b"job,function=start_job event=1 1", ["no_event"]),
        (b"job,function=start_job value=1 1", ["no_event"]),
        (b"job value=1 1", ["no_event"]),
        (b"cpu_load,hostname=h value=1 1", ["no_event"]),
        (START.replace(b"job,", b"jobs,", 1), ["no_event"]),
        (rb'nodestate event="{}" 1', ["no_event"]),
        (rb'job,function=stop_job event="" 1', ["stop_job"]),
    ],
)
def test_what_becomes_of_a_line(line: bytes, expected: list[str]) -> None:
    """The table of the contract; a line between others costs nobody else anything."""
    assert outcomes(line) == expected
    assert outcomes(START + b"\n" + line + b"\n" + START) == ["start_job", *expected, "start_job"]


def test_a_subject_for_nodes() -> None:
    """A line of another measurement is skipped there, and no function is asked for."""
    payload = START + b"\n" + rb'nodestate,function=x event="{}" 1'
    assert outcomes(payload, NODES) == ["no_event", "nodestate"]


def test_escapes_in_the_text() -> None:
    r"""``\n`` is a newline, which JSON forbids in a string, so a sender writes ``\\n``."""
    payload = rb'job,function=start_job event="{\"user\":\"a\\\"b\\n\\u00e4\",\n\t\"jobId\":1}" 1'
    (event,) = split_events(payload, JOBS)
    assert isinstance(event, Event)
    assert json.loads(event.text) == {"user": 'a"b\nä', "jobId": 1}


def test_the_last_of_several_fields_and_tags_counts() -> None:
    """As for repeated tags of metrics; a number beside the text makes no difference."""
    payload = b'job,function=x,function=stop_job event="a",event="b",event=1 1'
    assert list(split_events(payload, JOBS)) == [Event(1, Function.STOP_JOB, "b")]


def test_reasons_tell_what_was_wanted() -> None:
    """A reason can be acted upon without this source."""
    reasons = [
        found.reason
        for found in split_events(
            b'job event="" 1\njob,function=go event="" 1\nload value=1 1\njob value=1\n', JOBS | NODES
        )
        if isinstance(found, NoEvent)
    ]
    assert reasons == [
        "no tag 'function'",
        "function 'go' (wanted 'start_job' or 'stop_job')",
        "measurement 'load' (wanted 'job' or 'nodestate')",
        "no timestamp (wanted an integer behind the fields)",
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        *[(text, True) for text in (b"1", b"-1.5e3", b".5", b"5.", b"3i", b"3u", b"t", b"FALSE", Text("x"))],
        *[(text, False) for text in (b"NaN", b"inf", b"1e999", b"x", b"-3u", b"tRue", b"i", b"0x1")],
    ],
)
def test_field_values(raw: bytes | Text, expected: bool) -> None:
    """Whatever a field of an event may hold beside the event."""
    assert is_field_value(raw) is expected


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([START, b'job event="', b"\\", b'"', b"\n", b"x y=1 1", b"#", b" ", b",", b"="]))
)
def test_every_line_has_one_outcome(parts: list[bytes]) -> None:
    """Whatever a message holds, its end is reached, and the numbers of lines grow."""
    numbers = [found.line for found in split_events(b"".join(parts), JOBS)]
    assert numbers == sorted(set(numbers))


def test_a_memoryview_will_do() -> None:
    """A message need not be copied to be split."""
    view = memoryview(b"..." + START)[3:]
    assert [type(found) for found in split_events(view, JOBS)] == [Event]
    assert {outcome.value for outcome in EventOutcome} >= set(outcomes(START.replace(b"job", b"x")))
