r"""Events of jobs and nodes as they come over NATS: a message in line protocol -> its lines, one by one.

    job,function=start_job event="{\"jobId\":1001,...}" 1700000000000000000
    nodestate event="{\"cluster\":\"c\",\"nodes\":[...]}" 1700000000000000000

The JSON text of an event is handed on as it is; `ccstore.wire.jobs` and `ccstore.wire.nodestates` know what
it means. Owns what becomes of each line: it is an event, or it is not, and then there is a reason for it.
Invariant: every line that is neither blank nor a comment yields exactly one of the two, in order, and a
bad line costs itself alone.

The time of a line has to be there and is not used: senders write it in seconds as well as in nanoseconds.
"""

import enum
from collections.abc import Iterator, Mapping

from attrs import frozen

from ccstore.errors import ProtocolError
from ccstore.wire.lineprotocol import Line, Text, end_of_bad_line, is_field_value, parse_line

__all__ = ["FUNCTIONS", "Event", "EventOutcome", "Function", "NoEvent", "split_events"]

_INT64 = range(-(2**63), 2**63)


class Function(enum.Enum):
    """What an event asks for."""

    START_JOB = "start_job"
    STOP_JOB = "stop_job"
    NODE_STATES = "nodestate"


FUNCTIONS: Mapping[str, Mapping[str, Function]] = {
    "job": {function.value: function for function in (Function.START_JOB, Function.STOP_JOB)},
    "nodestate": {"": Function.NODE_STATES},
}
"""The functions by measurement and by the tag ``function``, which a measurement with one function lacks."""


class EventOutcome(enum.Enum):
    """What became of an event, or of a line that is none; each ends as exactly one of these."""

    DONE = "done"
    """It took effect, and is on disk."""
    BAD_LINE = "bad_line"
    """It is not line protocol, or has no time."""
    NO_EVENT = "no_event"
    """It has another measurement, or no string field ``event``: a metric, say."""
    NO_FUNCTION = "no_function"
    UNKNOWN_FUNCTION = "unknown_function"
    REFUSED = "refused"
    """Its JSON is bad, a check failed, or its job is unknown or not running."""
    FAILED = "failed"
    """The database would not take it."""
    LOST = "lost"
    """The server ended before its turn came, or its client would not wait."""


@frozen
class Event:
    """A line that is an event."""

    line: int
    """Its number in the message, from 1."""
    function: Function
    text: str
    """JSON."""


@frozen
class NoEvent:
    """A line that is none."""

    line: int
    outcome: EventOutcome
    reason: str


def split_events(payload: bytes | memoryview, measurements: frozenset[str]) -> Iterator[Event | NoEvent]:
    """Split a message into its lines; only those of `measurements`, of the keys of FUNCTIONS, are events."""
    start, stop, number = 0, len(payload), 0
    while start < stop:
        number += 1
        try:
            line = parse_line(payload, start, stop)
            found = None if line is None else _event_of(line, number, measurements)
            start = end_of_bad_line(payload, start, stop) if line is None else line.stop
        except ProtocolError as error:
            found = NoEvent(number, EventOutcome.BAD_LINE, str(error))
            start = end_of_bad_line(payload, start, stop)
        if found is not None:
            yield found


def _event_of(line: Line, number: int, measurements: frozenset[str]) -> Event | NoEvent:
    """Return what a grammatical line asks for. Raises ProtocolError for a bad time or field."""
    if line.timestamp is None:
        raise ProtocolError("no timestamp (wanted an integer behind the fields)")
    if line.timestamp not in _INT64:
        raise ProtocolError("timestamp out of range (wanted 64 bits)")
    for key, value in line.fields:
        if not is_field_value(value):
            raise ProtocolError(f"field {key[:40]!r}: neither a string, a boolean nor a finite number")
    if line.measurement not in measurements:
        wanted = " or ".join(map(repr, sorted(measurements)))
        return NoEvent(
            number, EventOutcome.NO_EVENT, f"measurement {line.measurement[:40]!r} (wanted {wanted})"
        )
    texts = [value for key, value in line.fields if key == "event" and isinstance(value, Text)]
    if not texts:
        return NoEvent(number, EventOutcome.NO_EVENT, "no string field 'event'")
    functions = FUNCTIONS[line.measurement]
    if "" in functions:
        return Event(number, functions[""], texts[-1])
    name = dict(line.tags).get("function")
    if name is None:
        return NoEvent(number, EventOutcome.NO_FUNCTION, "no tag 'function'")
    function = functions.get(name)
    if function is None:
        wanted = " or ".join(map(repr, functions))
        return NoEvent(number, EventOutcome.UNKNOWN_FUNCTION, f"function {name[:40]!r} (wanted {wanted})")
    return Event(number, function, texts[-1])
