"""Which hosts run jobs: as our registry knows, and as the job database of a site's backend tells over HTTP.

The answer protects the data of running jobs from retention, in memory and on disk. When one of the two does
not answer, its last good answer goes on to count for one retention; if there was none yet, nobody knows, and
nothing is freed so long. After that it protects nothing, because memory that is never freed harms everybody.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
import trio

from ccstore.config import Config
from ccstore.errors import CcstoreError, ProtocolError
from ccstore.memory.retention import UsedHosts
from ccstore.server.jobs import used_hosts
from ccstore.server.registry import Registry, make_registry

__all__ = [
    "UsedNodes",
    "decode_used_nodes",
    "join_providers",
    "lonely_provider",
    "open_provider",
    "own_provider",
]

UsedNodes = Callable[[int], Awaitable[UsedHosts | None]]
"""Returns the hosts of each cluster on which a job runs that started before the given time (s).

None if that is not known now, but may be soon: what may be needed then has to stay."""

log = logging.getLogger("ccstore.upkeep")

TIMEOUT = 10.0
"""Seconds for one question, whatever it is that takes the time."""


def open_provider(config: Config) -> UsedNodes | None:
    """Return the backend that is asked for the hosts in use, None if nobody is configured."""
    url, token = config.main.backend_url, config.main.backend_token
    if not url:
        return None
    backend = _Backend(f"{url.rstrip('/')}/api/jobs/used_nodes", token)
    return _Remembering(backend.url, backend, keep=config.metric_store.retention_in_memory)


def own_provider(registry: Registry, *, keep: float) -> UsedNodes:
    """Return our registry as the one that is asked; as long as it is not in use, it has no jobs."""

    async def ask(before: int) -> UsedHosts:
        if not registry.is_used:
            return {}
        with registry.patience():
            return await used_hosts(registry, before)

    return _Remembering("registry", ask, keep=keep)


def lonely_provider(config: Config) -> UsedNodes:
    """Return who is asked where no server runs: our registry, if it is there, and the backend."""

    async def ask(before: int) -> UsedHosts | None:
        backend = open_provider(config)
        if not await trio.Path(config.main.db).exists():  # to ask must not make it
            return await join_providers(backend)(before)
        registry = make_registry(config)
        own = own_provider(registry, keep=config.metric_store.retention_in_memory)
        async with trio.open_nursery() as nursery:
            with registry.held():
                nursery.start_soon(registry.run)
                return await join_providers(own, backend)(before)
        raise AssertionError("the nursery ends with the answer")

    return ask


def join_providers(*providers: UsedNodes | None) -> UsedNodes:
    """Return one that knows of every host that any of some others knows of; if one is unsure, so is it."""

    async def ask(before: int) -> UsedHosts | None:
        joined: dict[str, frozenset[str]] = {}
        answers = [await provider(before) for provider in providers if provider is not None]
        for answer in answers:
            if answer is None:
                return None
            for cluster, hosts in answer.items():
                joined[cluster] = joined.get(cluster, frozenset()).union(hosts)
        return joined

    return ask


class _Remembering:
    """Asks somebody, and lets the last good answer count for `keep` seconds."""

    def __init__(self, name: str, ask: Callable[[int], Awaitable[UsedHosts]], *, keep: float) -> None:
        self._name = name
        self._ask = ask
        # Without a retention nothing but the memory cap frees, and that comes to these hosts last anyway.
        self._keep = keep if keep > 0 else math.inf
        self._last: UsedHosts | None = None
        self._good_until = trio.current_time() + self._keep

    async def __call__(self, before: int) -> UsedHosts | None:
        """Return the hosts of each cluster on which a job runs that started before a time (s).

        None if it has not answered yet.
        """
        try:
            with trio.fail_after(TIMEOUT):
                self._last = await self._ask(before)
            self._good_until = trio.current_time() + self._keep
        except (httpx.HTTPError, CcstoreError, trio.TooSlowError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if trio.current_time() >= self._good_until:
                self._last = {}
            effect = "the last answer goes on to count" if self._last else "no host is protected"
            fields = {
                "source": self._name,
                "error": reason,
                "effect": "every host may be one" if self._last is None else effect,
            }
            log.error("used nodes: %(source)s: %(error)s; %(effect)s", fields)
        return self._last


class _Backend:
    """Asks a backend over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = httpx.create_ssl_context()  # reading all certificates takes 20 ms: once, not each time

    async def __call__(self, before: int) -> UsedHosts:
        async with httpx.AsyncClient(timeout=TIMEOUT, headers=self._headers, verify=self._tls) as client:
            answer = await client.get(self.url, params={"ts": before})
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
