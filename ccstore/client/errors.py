"""What can go wrong between a program and a server."""

from collections.abc import Mapping
from typing import Any

from ccstore.errors import CcstoreError

__all__ = ["ServerError"]


class ServerError(CcstoreError):
    """A server could not be reached, or did not do what it was asked.

    `status` is that of its answer, 0 if there was none. `details` is what the answer tells besides its
    text, such as the lines of a write that were not stored.
    """

    def __init__(self, message: str, *, status: int = 0, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = dict(details or {})
