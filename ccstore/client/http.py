"""The client itself: requests over HTTP, and where streams begin.

Owns the connections of requests, the token, and the words for what can go wrong. Invariant: whatever happens
to a request ends as its answer or as a `ServerError`.
"""

import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from ccstore.client.errors import ServerError
from ccstore.client.messages import Result, decode_results, encode_queries
from ccstore.client.nursery import open_plain_nursery
from ccstore.client.stream import NodeStream, Stream
from ccstore.model import Query

__all__ = ["Client"]

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class Client:
    """A store that is reached over the network; to be used with ``async with``, on Trio.

    url: where it listens, such as ``http://127.0.0.1:8082``; a path in it is kept, for a proxy.
    token: shown to the store unless it is empty.
    verify: checks the certificate of the store; by default as httpx does.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8082", *, token: str = "", verify: ssl.SSLContext | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        """Sent with every request."""
        self._verify = verify
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=self.headers,
            verify=verify or True,
            timeout=_TIMEOUT,
            mounts={f"all://{host}": None for host in _LOCAL},  # no proxy for this machine itself
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def write(self, lines: str | bytes | Iterable[str], *, cluster: str = "") -> None:
        """Store samples in line protocol: a text, or one text for each line.

        cluster: of lines that name none. Returns when they are on the disk of the store. Raises ServerError
        if a line was refused; all good lines are stored then, and its `details` have the bad ones.
        """
        if not isinstance(lines, str | bytes):
            lines = "\n".join(lines)
        await self._request(
            "POST", "/api/write", content=lines, params={"cluster": cluster} if cluster else None
        )

    async def query(
        self,
        cluster: str,
        queries: Sequence[Query] = (),
        *,
        start: int,
        stop: int,
        for_all_nodes: Sequence[str] = (),
    ) -> list[list[Result]]:
        """Ask for values in [start, stop), seconds since the epoch.

        Returns a list for each query, with one result for each series; then, for each host of the cluster
        by name, one for each metric of `for_all_nodes`. Values begin where data begin.
        """
        body = {
            "cluster": cluster,
            "from": start,
            "to": stop,
            "with-padding": False,
            "queries": encode_queries(queries),
            "for-all-nodes": for_all_nodes,
        }
        answer = await self._request("POST", "/api/query", content=orjson.dumps(body))
        return decode_results(answer.content)

    async def get(self, path: str) -> Any:
        """Return what a route without parameters answers, such as ``/api/metrics`` or ``/api/stats``."""
        return (await self._request("GET", path)).json()

    @asynccontextmanager
    async def stream(
        self,
        cluster: str,
        queries: Sequence[Query] = (),
        *,
        for_all_nodes: Sequence[str] = (),
        window: int = 600,
    ) -> AsyncIterator[Stream]:
        """Open a stream of values: what is stored of the last `window` seconds, then every change.

        It connects again by itself whenever the connection is lost, for as long as the context lasts. Raises
        ServerError, here or while it is read, if the store refuses it; see `Stream`.
        """
        request = {"cluster": cluster, "queries": encode_queries(queries), "for-all-nodes": for_all_nodes}
        wanted = {"query": request, "window": window, "format": "binary"}
        async with open_plain_nursery() as nursery:
            yield Stream(self.url, self.headers, self._verify, nursery, wanted)

    @asynccontextmanager
    async def stream_job(
        self,
        cluster: str,
        job_id: int,
        metrics: Sequence[str],
        *,
        start_time: int = 0,
        scope: str = "node",
        resolution: int = 0,
        window: int = 0,
    ) -> AsyncIterator[Stream]:
        """Open a stream of the values of a job's hosts, from its start on; it ends when the job does.

        start_time: of the job, seconds since the epoch; 0: the newest job of this number.
        scope: which parts of the hosts: ``node``, ``socket``, ``memoryDomain``, ``core``, ``hwthread`` or
        ``accelerator``.
        window: how many seconds back it begins at most; 0: at the start of the job.
        """
        wanted = {
            "job": {"cluster": cluster, "jobId": job_id, "startTime": start_time},
            "metrics": metrics,
            "scope": scope,
            "resolution": resolution,
            "format": "binary",
            **({"window": window} if window else {}),
        }
        async with open_plain_nursery() as nursery:
            yield Stream(self.url, self.headers, self._verify, nursery, wanted)

    @asynccontextmanager
    async def stream_nodes(self, cluster: str) -> AsyncIterator[NodeStream]:
        """Open a stream of the states of a cluster's nodes: all of them, then every change."""
        async with open_plain_nursery() as nursery:
            yield NodeStream(self.url, self.headers, self._verify, nursery, {"nodes": {"cluster": cluster}})

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        where = f"{self.url}{path}"
        try:
            answer = await self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(f"{where}: {error or type(error).__name__}") from error
        if answer.is_success:
            return answer
        try:
            details = orjson.loads(answer.content)
            text = details.pop("error")
        except (orjson.JSONDecodeError, KeyError, AttributeError):  # not of a store
            details, text = {}, answer.reason_phrase
        raise ServerError(f"{where}: {answer.status_code} {text}", status=answer.status_code, details=details)
