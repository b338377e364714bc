"""What a host has, as clients are told."""

import json

import attrs
from apiserver import running

from ccstore.memory.components import Component, components_of, split_component


def test_names_are_taken_apart_as_senders_put_them_together():
    """Exact for the usual types, whatever their ids are."""
    names = {
        "socket0": ("socket", "0"),
        "memoryDomain12": ("memoryDomain", "12"),
        "accelerator0000:81:00.0": ("accelerator", "0000:81:00.0"),
        "hwthread007": ("hwthread", "007"),
        "disk3": ("disk", "3"),
        "core": ("core", ""),
        "filesystem/tmp": ("filesystem", "/tmp"),
        "acceleratorGPU-a1": ("accelerator", "GPU-a1"),
    }
    assert {name: split_component(name) for name in names} == names


LINES = [
    "load,hostname=h,cluster=c value=1 1700000000",
    "plain,hostname=h,cluster=c value=1 1700000000",
    *(f"x,hostname=h,cluster=c,type=socket,type-id={n} value=1 1700000000" for n in (10, 2)),
    "m,hostname=h,cluster=c,type=socket,type-id=2,stype=dimm,stype-id=1 value=1 1700000000",
]


async def test_components_come_in_the_order_of_their_numbers():
    """The host first, and each component before what is in it, with the metrics stored right there."""
    wanted = [
        Component("node", "", "", "", ("load", "plain")),
        Component("socket", "2", "", "", ("x",)),
        Component("socket", "2", "dimm", "1", ("m",)),
        Component("socket", "10", "", "", ("x",)),
    ]
    async with running() as server:
        await server.write(*LINES)
        assert list(components_of(server.services.store, "c", "h")) == wanted
        answer = await server.ask("GET", "/api/components?cluster=c&host=h")
        nobody = await server.ask("GET", "/api/components?cluster=c&host=g")
    found = json.loads(answer.body)["components"]
    assert found == [attrs.asdict(component) | {"metrics": list(component.metrics)} for component in wanted]
    assert (nobody.status, json.loads(nobody.body)["error"]) == (404, "host: 'c' has no 'g' with samples")
