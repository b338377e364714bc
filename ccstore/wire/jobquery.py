"""Queries by job: JSON <-> model. The answer is that of an ordinary query, and tells what each row is.

It knows neither the database that knows the job nor the clusters that know its hosts. Invariant: the
k-th list of results belongs to the k-th query in the answer, and the n-th object in it to the n-th of the
query's ``type-ids``, whatever is stored.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from ccstore.errors import ProtocolError
from ccstore.model import Job, JobQuery, JobState, QueryRequest
from ccstore.wire.jsonvalue import decode_value, structure
from ccstore.wire.query import decode_query

__all__ = ["SCOPES", "check_job_query", "decode_question", "encode_head"]

SCOPES = ("node", "socket", "memoryDomain", "core", "hwthread", "accelerator")


def decode_question(body: bytes) -> QueryRequest | JobQuery:
    """Return the query in a request's body, which is one by job if it has the key ``job``.

    Unknown keys of a query by job are refused. Raises ProtocolError.
    """
    value = decode_value(body)
    if not (isinstance(value, Mapping) and any(key.lower() == "job" for key in value)):
        return decode_query(body)
    wanted = structure(value, JobQuery, strict=True)
    check_job_query(wanted)
    return wanted


def check_job_query(wanted: JobQuery) -> None:
    """Raise ProtocolError if a query by job names no job, no metric, or a scope that there is not."""
    if wanted.job.job_id < 1:
        raise ProtocolError(f"body.job.jobId: {wanted.job.job_id} (wanted a number above 0)")
    if not wanted.metrics:
        raise ProtocolError("body.metrics: empty (wanted the names of metrics)")
    if wanted.scope not in SCOPES:
        raise ProtocolError(f"body.scope: {wanted.scope[:40]!r} (wanted one of {', '.join(SCOPES)})")


def encode_head(job: Job, request: QueryRequest) -> Iterator[bytes]:
    """Write what stands in front of the key ``results``: the job, the range, and the queries."""
    head: dict[str, Any] = {
        "cluster": job.cluster,
        "jobId": job.job_id,
        "startTime": job.start_time,
        "jobState": job.state.value,
    }
    if job.state is not JobState.RUNNING:
        head["stopTime"] = job.start_time + job.duration
    yield b'{"job":%b,"from":%d,"to":%d,"queries":[' % (orjson.dumps(head), request.start, request.stop)
    separator = b""
    for query in request.queries:
        entry = {"metric": query.metric, "host": query.host, "resolution": query.resolution, "aggreg": False}
        if query.type is not None:
            entry |= {"type": query.type, "type-ids": query.type_ids}
        yield separator + orjson.dumps(entry)
        separator = b","
    yield b"],"
