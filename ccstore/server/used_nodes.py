"""Which hosts run jobs, as the job database of a site's backend tells over HTTP.

The answer protects the data of running jobs from retention, in memory and on disk. When the backend does not
answer, the last good answer goes on to count for one retention; if there was none yet, nobody knows, and
nothing is freed so long. After that nothing is protected, because memory that is never freed harms everybody.
"""

import logging
import math
from typing import Any

import httpx
import orjson
import trio

from ccstore.config import Config
from ccstore.errors import ProtocolError
from ccstore.memory.retention import UsedHosts
from ccstore.server.services import UsedNodes

__all__ = ["decode_used_nodes", "open_provider"]

log = logging.getLogger("ccstore.upkeep")

TIMEOUT = 10.0
"""Seconds for one question, whatever it is that takes the time."""


def open_provider(config: Config) -> UsedNodes | None:
    """Return who is asked for the hosts in use, None if nobody is configured."""
    if not config.main.backend_url:
        return None
    retention = config.metric_store.retention_in_memory
    # Without a retention nothing but the memory cap frees, and that comes to these hosts last anyway.
    keep = retention if retention > 0 else math.inf
    return _Backend(config.main.backend_url, config.main.backend_token, keep=keep)


class _Backend:
    """Asks a backend, and remembers its last good answer for `keep` seconds."""

    def __init__(self, url: str, token: str, *, keep: float) -> None:
        self._url = f"{url.rstrip('/')}/api/jobs/used_nodes"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = httpx.create_ssl_context()  # reading all certificates takes 20 ms: once, not each time
        self._keep = keep
        self._last: UsedHosts | None = None
        self._good_until = trio.current_time() + keep

    async def __call__(self, before: int) -> UsedHosts | None:
        """Return the hosts of each cluster on which a job runs that started before a time (s).

        None if it has not answered yet.
        """
        try:
            with trio.fail_after(TIMEOUT):
                self._last = await self._ask(before)
            self._good_until = trio.current_time() + self._keep
        except (httpx.HTTPError, ProtocolError, trio.TooSlowError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if trio.current_time() >= self._good_until:
                self._last = {}
            effect = "the last answer goes on to count" if self._last else "no host is protected"
            fields = {
                "url": self._url,
                "error": reason,
                "effect": "every host may be one" if self._last is None else effect,
            }
            log.error("used nodes: %(url)s: %(error)s; %(effect)s", fields)
        return self._last

    async def _ask(self, before: int) -> UsedHosts:
        async with httpx.AsyncClient(timeout=TIMEOUT, headers=self._headers, verify=self._tls) as client:
            answer = await client.get(self._url, params={"ts": before})
        return decode_used_nodes(answer.raise_for_status().content)


def decode_used_nodes(body: bytes) -> UsedHosts:
    """Return the hosts by cluster: of ``{"usedNodes": {...}}``, or of the inner object alone.

    Raises ProtocolError.
    """
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
