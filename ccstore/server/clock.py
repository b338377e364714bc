"""Time: the only reader of the wall clock, and jobs that come back.

Everything else is given `now`, in whole seconds since the epoch, as an argument. Intervals are
measured with Trio's clock, which tests replace and which no administrator sets back.
"""

import logging
import time
from collections.abc import Awaitable, Callable

import trio
from attrs import define

from ccstore.errors import CcstoreError

__all__ = ["JobStatistics", "describe", "every", "is_expected", "wall_clock"]

log = logging.getLogger("ccstore.upkeep")


def describe(error: BaseException) -> list[str]:
    """Return what an exception says, and of a group what each in it says."""
    if isinstance(error, BaseExceptionGroup):
        return [text for inner in error.exceptions for text in describe(inner)]
    return [f"{type(error).__name__}: {error}"]


def is_expected(error: BaseException) -> bool:
    """Tell whether an exception comes from outside, from a disk or a network, and is no bug."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_expected, error.exceptions))
    return isinstance(error, OSError | CcstoreError)


def wall_clock() -> int:
    """Return the time in whole seconds since the epoch."""
    return int(time.time())


@define(eq=False)
class JobStatistics:
    """How a periodic job fares."""

    runs: int = 0
    """Runs that came to their end, failed ones included."""
    failures: int = 0
    last_seconds: float = 0.0
    """How long the last run took."""
    last_error: str = ""
    """Of the last run; empty if it went well."""


async def every(
    interval: Callable[[], float],
    job: Callable[[], Awaitable[object]],
    *,
    name: str,
    statistics: JobStatistics,
) -> None:
    """Run a job after each interval (s), which is asked for anew each time, until cancelled.

    A job that fails is logged and counted, and tried again after the next interval: what it takes care of
    waits that long, and nothing else is disturbed.
    """
    while True:
        await trio.sleep(interval())
        began = trio.current_time()
        try:
            await job()
            statistics.last_error = ""
        except Exception as error:  # whatever it is, the other jobs and the server go on
            statistics.failures += 1
            statistics.last_error = "; ".join(describe(error))
            # who reads the log can do something about a disk, and has no use for where we noticed it
            log.error(
                "%(job)s: failed, tried again after the next interval: %(error)s",
                {"job": name, "error": statistics.last_error},
                exc_info=None if is_expected(error) else error,
            )
        statistics.runs += 1
        statistics.last_seconds = trio.current_time() - began
