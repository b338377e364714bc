"""The exceptions of ccstore, one class for each who must act.

Every message has one form: where, then what was found and what was wanted, in lower case,
with its units and without a full stop. Mistakes of our own are assertions, never one of these:
they end the process.
"""

from collections.abc import Sequence

__all__ = [
    "BusyError",
    "CcstoreError",
    "ConfigError",
    "CorruptionError",
    "ProtocolError",
    "QueryError",
    "UnavailableError",
]


class CcstoreError(Exception):
    """Base class of all errors that ccstore raises on purpose."""


class ConfigError(CcstoreError):
    """The operator must act: a configuration or a command line cannot be used.

    `problems` lists every mistake that was found, each as ``path: what (got, wanted)``; the
    text of the exception is these lines together.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ProtocolError(CcstoreError):
    """A sender must act: it sent bytes that break the protocol it speaks."""


class QueryError(CcstoreError):
    """A client must act: it asked for something that cannot be answered as asked."""


class CorruptionError(CcstoreError):
    """Bytes on our own disk are not what was written there; the message names path and byte."""


class BusyError(CcstoreError):
    """Too much at once; the same request can succeed later."""


class UnavailableError(CcstoreError):
    """The server cannot do this now, through nobody's fault who asks; the same request can succeed later.

    `retry_after` is in how many seconds that may be.
    """

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
