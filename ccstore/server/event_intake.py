"""The way in for events over NATS: from messages to what they ask for, line by line.

Owns the connection's messages until their events stand in line. Reading rests while there is no room
in the lines, and never the other way round: metrics come over a connection of their own. Invariant: every
line of a message is counted, here if it is no event, else where it is done; and what had arrived before
the intake was ended is done before `receive` returns.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import trio

from ccstore.config import NatsConfig
from ccstore.config.sections import ApiSubjects
from ccstore.errors import ProtocolError
from ccstore.server import nats
from ccstore.server.events import Events, Kind, Request
from ccstore.server.nats import Messages, Subscription
from ccstore.wire.events import Event, EventOutcome, Function, NoEvent, split_events
from ccstore.wire.jobs import decode_job_start, decode_job_stop
from ccstore.wire.nodestates import decode_report

__all__ = ["measurements_of", "receive"]

log = logging.getLogger("ccstore.events")

MIB = 1024 * 1024
BUDGET_BYTES = 64 * MIB
"""What may wait between the broker and the lines."""
MAX_EVENT_BYTES = 8 * MIB
"""The same as for a request over HTTP."""
LARGE_PAYLOAD = 8 * 1024
"""A larger message is decoded in a thread: a report of 2 000 nodes takes some 20 ms, and 32 KiB of lines
that are none take twice as long."""

_DECODE: Mapping[Function, Callable[[bytes], Request]] = {
    Function.START_JOB: decode_job_start,
    Function.STOP_JOB: decode_job_stop,
    Function.NODE_STATES: decode_report,
}
_LEVELS: Mapping[Kind, Mapping[EventOutcome, int]] = {
    "job": {EventOutcome.NO_EVENT: logging.DEBUG, EventOutcome.UNKNOWN_FUNCTION: logging.WARNING},
    "node": {EventOutcome.NO_EVENT: logging.WARNING, EventOutcome.UNKNOWN_FUNCTION: logging.WARNING},
}
"""At which level lines that are no events are logged, where it is not an error."""


def measurements_of(subjects: ApiSubjects) -> Mapping[str, frozenset[str]]:
    """Return by subject which measurements are events there; the two subjects may be one."""
    found: dict[str, frozenset[str]] = {subjects.subject_job_event: frozenset({"job"})}
    others = found.get(subjects.subject_node_state, frozenset())
    return {**found, subjects.subject_node_state: others | {"nodestate"}}


async def receive(
    events: Events,
    config: NatsConfig,
    subjects: ApiSubjects,
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Subscribe, and have all events done that come; `started` gets a scope whose end is the intake's.

    Cancelling it ends the intake softly: what has arrived is done first, as far as it can be.
    """
    measurements = measurements_of(subjects)
    expiry = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run_in, expiry, events.expire_stops)
        async with trio.open_nursery() as tasks:
            try:
                await nats.receive(
                    config,
                    [Subscription(subject, queue=config.queue_group) for subject in measurements],
                    partial(_deliver, events, measurements, tasks),
                    statistics=events.nats,
                    overflow="block",
                    budget_bytes=BUDGET_BYTES,
                    task_status=task_status,
                )
            finally:
                if left := events.nats.queued_messages:
                    log.error("events: up to %(messages)d messages lost: the server ends", {"messages": left})
        expiry.cancel()  # only now: what was in line could be the start that a stop has waited for


async def _run_in(scope: trio.CancelScope, function: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await function()


async def _deliver(
    events: Events, measurements: Mapping[str, frozenset[str]], tasks: trio.Nursery, messages: Messages
) -> None:
    """Put the events of some messages in line, in their order; wait while there is no room."""
    for message in messages:
        await trio.lowlevel.checkpoint()  # what is no event waits for nothing else
        subject = message.subscription.subject
        kind: Kind = "job" if "job" in measurements[subject] else "node"
        payload = bytes(message.payload)  # what waits must not keep the memory of others
        if not payload.strip():
            events.empty_messages += 1
            log.warning("%(subject)s: empty message", {"subject": message.subject})
            continue
        if len(payload) > LARGE_PAYLOAD:
            lines = await trio.to_thread.run_sync(_decode, payload, measurements[subject])
        else:
            lines = _decode(payload, measurements[subject])
        _note(events, kind, message.subject, [line for line in lines if isinstance(line, NoEvent)])
        for request in lines:
            if not isinstance(request, NoEvent):
                tasks.start_soon(events.perform, await events.queue(request), request)


def _decode(payload: bytes, measurements: frozenset[str]) -> list[Request | NoEvent]:
    """Return what each line of a message asks for, or why it asks for nothing."""
    return [
        found if isinstance(found, NoEvent) else _decode_event(found)
        for found in split_events(payload, measurements)
    ]


def _decode_event(event: Event) -> Request | NoEvent:
    if len(event.text) > MAX_EVENT_BYTES:
        reason = f"event: {len(event.text)} characters (wanted at most {MAX_EVENT_BYTES})"
        return NoEvent(event.line, EventOutcome.REFUSED, reason)
    try:
        return _DECODE[event.function](event.text.encode())
    except ProtocolError as error:
        return NoEvent(event.line, EventOutcome.REFUSED, str(error))


def _note(events: Events, kind: Kind, subject: str, lines: Sequence[NoEvent]) -> None:
    """Count the lines that are no events, and log the first of each outcome."""
    for outcome, number in Counter(line.outcome for line in lines).items():
        events.count("nats", kind, outcome, number)
        first = next(line for line in lines if line.outcome is outcome)
        log.log(
            _LEVELS[kind].get(outcome, logging.ERROR),
            "%(subject)s: line %(line)d: %(outcome)s: %(reason)s (%(lines)d such lines in the message)",
            {
                "subject": subject,
                "line": first.line,
                "outcome": outcome.value,
                "reason": first.reason,
                "lines": number,
            },
        )
