"""What the server says: errors as objects, exceptions as statuses, JSON as bytes.

Owns the form of every error answer and the one table from exception to status. Never looks at a
request. Invariant: an answer has exactly one Content-Type, and an error names its status in words.

Handlers raise; they do not build error answers, so that the same mistake reads the same at every
endpoint. `HttpError` is for a status that no class of `ccstore.errors` stands for.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from quart import Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from ccstore.errors import BusyError, CcstoreError, ProtocolError, QueryError, UnavailableError
from ccstore.server.auth import AuthenticationError, ForbiddenError

__all__ = ["HttpError", "answer_for", "error_answer", "headers_of", "json_answer", "status_of", "text_answer"]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

BUSY_RETRY = 1
"""Seconds a client is asked to wait when there was too much at once."""

STATUS_OF: tuple[tuple[type[CcstoreError], int], ...] = (
    (QueryError, 400),
    (ProtocolError, 400),
    (AuthenticationError, 401),
    (ForbiddenError, 403),
    (BusyError, 429),
    (UnavailableError, 503),
)

# The standard library has renamed these between Python 3.12 and 3.13; clients shall not notice.
REASONS = {413: "Request Entity Too Large", 422: "Unprocessable Entity"}


class HttpError(CcstoreError):
    """A client must act, and only this status tells it how.

    `headers` are added to the answer, such as ``Retry-After``; `details` to the error object.
    """

    def __init__(
        self,
        status: int,
        error: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.headers = dict(headers or {})
        self.details = dict(details or {})


def json_answer(value: Any, status: int = 200) -> Response:
    """Encode `value` with orjson, a newline behind; NaN becomes null."""
    return Response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), status, content_type=JSON)


def text_answer(text: str, status: int = 200) -> Response:
    """Answer `text` as it is."""
    return Response(text, status, content_type=TEXT)


def error_answer(
    status: int,
    error: str,
    *,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Response:
    """Build the error object: `status` in words, the text, then `details`."""
    reason = REASONS.get(status) or HTTPStatus(status).phrase
    answer = json_answer({"status": reason, "error": error, **(details or {})}, status)
    answer.headers.update(headers or {})
    return answer


def answer_for(error: Exception) -> Response | None:
    """Build the answer to an exception a client can cause; None for a bug of ours."""
    match error:
        case HttpError():
            return error_answer(error.status, str(error), headers=error.headers, details=error.details)
        case NotFound():
            return text_answer("404 page not found\n", 404)
        case MethodNotAllowed():
            answer = text_answer("Method Not Allowed\n", 405)
            answer.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
            return answer
        case HTTPException() if error.code is not None:
            return error_answer(error.code, error.description or error.name)
        case CcstoreError():
            status = status_of(error)
            if status is None:
                return None
            headers = headers_of(status)
            if isinstance(error, UnavailableError):
                headers["Retry-After"] = str(error.retry_after)
            return error_answer(status, str(error), headers=headers)
        case _:
            return None


def status_of(error: CcstoreError) -> int | None:
    """Return the status that an error of ours has; None if no client can cause it."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), None)


def headers_of(status: int) -> dict[str, str]:
    """Return what an answer with a status tells in its head."""
    match status:
        case 401:
            return {"WWW-Authenticate": "Bearer"}
        case 429 | 503:
            return {"Retry-After": str(BUSY_RETRY)}
        case _:
            return {}
