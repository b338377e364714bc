"""Which hosts run jobs, as the job database of a site's backend tells over HTTP.

The answer protects the data of running jobs from retention. When the backend does not answer, the
last good answer goes on to count for one retention interval; after that nothing is protected, because memory
that is never freed harms everybody.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import httpx
import orjson
import trio

from ccstore.config import Config
from ccstore.errors import ProtocolError
from ccstore.server.services import UsedNodes

__all__ = ["open_provider"]

log = logging.getLogger("ccstore.upkeep")

_TIMEOUT = 10.0
"""Seconds for one question."""


def open_provider(config: Config) -> UsedNodes | None:
    """Return who is asked for the hosts in use, None if nobody is configured."""
    if not config.main.backend_url:
        return None
    return _Backend(
        config.main.backend_url, config.main.backend_token, keep=config.metric_store.retention_in_memory
    )


class _Backend:
    """Asks a backend, and remembers its last good answer for `keep` seconds."""

    def __init__(self, url: str, token: str, *, keep: float) -> None:
        self._url = f"{url.rstrip('/')}/api/jobs/used_nodes"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._keep = keep
        self._last: Mapping[str, Collection[str]] = {}
        self._good_until = trio.current_time()

    async def __call__(self, before: int) -> Mapping[str, Collection[str]]:
        """Return the hosts of each cluster on which a job runs that started before a time (s)."""
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT, headers=self._headers) as client:
                answer = await client.get(self._url, params={"ts": before})
            answer.raise_for_status()
            self._last = decode_used_nodes(answer.content)
            self._good_until = trio.current_time() + self._keep
        except (httpx.HTTPError, ProtocolError) as error:
            still = trio.current_time() < self._good_until
            log.error(
                "used nodes: %s: %s; %s", self._url, error,
                "the last answer goes on to count" if still else "no host is protected",
            )  # fmt: skip
            if not still:
                self._last = {}
        return self._last


def decode_used_nodes(body: bytes) -> Mapping[str, Collection[str]]:
    """Return the hosts by cluster: of ``{"usedNodes": {...}}``, or of the inner object alone. Raises ProtocolError."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"used nodes: not JSON ({error})") from error
    inner = value.get("usedNodes", value) if isinstance(value, dict) else value
    if not isinstance(inner, dict) or not all(
        isinstance(hosts, list) and all(isinstance(host, str) for host in hosts) for hosts in inner.values()
    ):
        raise ProtocolError("used nodes: wrong shape (wanted an object of lists of host names)")
    return {cluster: frozenset(hosts) for cluster, hosts in inner.items()}
