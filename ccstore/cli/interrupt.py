"""Commands that run until they are told to stop.

Owns the meaning of signals for them. Invariant: the first Ctrl-C, and SIGTERM, end the job softly and
nothing else; the second one ends the command at once.
"""

import signal
from collections.abc import Awaitable, Callable

import trio

from ccstore.cli import ExitCode

__all__ = ["run_until_signal"]


async def run_until_signal(job: Callable[[], Awaitable[None]]) -> ExitCode:
    """Run a job until it ends, or cancel it when a signal comes; return the exit code that this means.

    What should be finished afterwards is finished by whoever called.
    """
    code = ExitCode.OK

    async def wait(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        nonlocal code
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.OK
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        await nursery.start(wait)
        await job()
        nursery.cancel_scope.cancel()
    return code
