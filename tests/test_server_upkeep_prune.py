"""Freeing while lines keep coming: ids are used again, and are never mixed up."""

import random
from collections import Counter

import pytest
import trio
from attrs import define, field
from service_tools import NOW, fill, make_config, number, stored

from ccstore.server import upkeep
from ccstore.server.services import Services, make_services

pytestmark = pytest.mark.timeout(60)

HOSTS = [f"h{n}" for n in range(1, 201)]
FUTURE = NOW + 1_000_000_000
SPELLINGS = (
    "cpu_load,cluster=birch,hostname={},type=node value={} {}\n",
    "cpu_load,hostname={},type=node,cluster=birch value={} {}\n",
    "cpu_load,cluster=birch,type=node,hostname={},type-id=0 value={} {}\n",
)


@define
class Oracle:
    """What must be stored of each host, and what may be: samples written while the host was being freed."""

    sure: Counter[str] = field(factory=Counter)
    maybe: Counter[str] = field(factory=Counter)
    freeing: Counter[str] = field(factory=Counter)
    frees: Counter[str] = field(factory=Counter)

    def check(self, services: Services) -> None:
        """Compare it with the store; each value is the number in its host's name."""
        values = {host: values for (_, host), values in stored(services, stop=NOW + 1_000_000).items()}
        for host in HOSTS:
            found = values.get(host, [])
            assert set(found) <= {float(number(host))}
            assert self.sure[host] <= len(found) <= self.sure[host] + self.maybe[host]


async def write(services: Services, oracle: Oracle, rng: random.Random, clock: list[int]) -> None:
    """Write a sample for some hosts, in some spelling each, a new minute each time."""
    clock[0] += 60
    chosen = rng.sample(HOSTS, 20)
    before = {host: oracle.frees[host] for host in chosen}
    oracle.maybe.update(chosen)
    text = [rng.choice(SPELLINGS).format(host, number(host), clock[0]) for host in chosen]
    # refused lines teach keys, too, and leave their series without samples
    text += [rng.choice(SPELLINGS).format(host, 0, FUTURE) for host in rng.sample(HOSTS, 20)]
    rng.shuffle(text)
    await fill(services, "".join(text).encode())
    for host in chosen:
        if oracle.frees[host] == before[host] and not oracle.freeing[host]:
            oracle.maybe[host] -= 1
            oracle.sure[host] += 1


async def free(services: Services, oracle: Oracle, rng: random.Random) -> None:
    """Free everything of some hosts; what is written meanwhile may or may not survive."""
    chosen = rng.sample(HOSTS, 40)
    for host in chosen:
        oracle.freeing[host] += 1
        oracle.frees[host] += 1
        oracle.maybe[host] += oracle.sure[host]
        oracle.sure[host] = 0
    await upkeep.free_selectors(services, [("birch", host) for host in chosen], FUTURE)
    for host in chosen:
        oracle.freeing[host] -= 1


@pytest.mark.parametrize("seed", range(3))
async def test_ids_are_never_mixed_up(seed: int) -> None:
    """Three writers, two who free and one who reads: nothing is lost, and nothing is another host's."""
    rng = random.Random(seed)
    services, oracle, clock = make_services(make_config(), now=lambda: NOW + 1_000_000), Oracle(), [NOW]

    async def repeat_write() -> None:
        for _ in range(60):
            await write(services, oracle, rng, clock)

    async def repeat_free() -> None:
        for _ in range(12):
            await free(services, oracle, rng)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(repeat_write)
        for _ in range(2):
            nursery.start_soon(repeat_free)
        while len(nursery.child_tasks) > 0:
            oracle.check(services)
            await trio.lowlevel.checkpoint()
    oracle.check(services)
    assert services.freed_chunks > len(HOSTS)
    total = services.ledger.total()
    assert total["stored"] == total["future"] == 3 * 60 * 20
    assert total["received"] == 2 * total["stored"]
    await upkeep.free_selectors(services, [()], FUTURE)
    assert stored(services) == {}
    statistics = services.store.statistics()
    assert (statistics.series, statistics.hosts, statistics.clusters, len(services.keys)) == (0, 0, 0, 0)
