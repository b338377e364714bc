"""What the server tells about itself: /metrics and /api/stats say the same, and never go back."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_tools import (
    NOW,
    Server,
    fill,
    get,
    get_json,
    lines,
    make_config,
    post,
    running,
    wait_until,
    with_store,
)
from serving import ask, connected

from ccstore import __version__
from ccstore.server.histogram import Histogram

pytestmark = pytest.mark.timeout(60)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def read(server: Server) -> tuple[Samples, dict[str, str], dict[str, object]]:
    """Return the samples and the types of /metrics, and /api/stats."""
    answer = await get(server, "/metrics")
    stats = await get_json(server, "/api/stats")
    assert (answer["content-type"] or "").startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.body.decode()))
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return samples, {family.name: family.type for family in families}, stats


def flat(stats: dict[str, object], prefix: str = "ccstore_") -> Iterator[tuple[str, object]]:
    """Yield the numbers of /api/stats by the name that they have in /metrics."""
    for key, value in stats.items():
        if key == "nats":
            assert isinstance(value, dict)
            yield from flat(value, "ccstore_nats_")
        elif isinstance(value, (int, float)):
            yield prefix + key, value


async def test_both_ways_to_ask_say_the_same() -> None:
    """Every number of /api/stats is in /metrics with the same value, and the process is there, too."""
    async with running(with_store(make_config(), memory_cap_bytes=10**9)) as server:
        await post(server, "/api/write", lines(["h1", "h2"], cluster="birch"))
        samples, types, stats = await read(server)
    changing = {"ccstore_uptime_seconds", "ccstore_loop_hold_seconds_max", "ccstore_loop_holds"}
    changing |= {"ccstore_loop_busy_seconds", "ccstore_tasks", "ccstore_threads_busy"}
    compared = 0
    for name, value in flat(stats):
        suffix = "_total" if types[name] == "counter" else ""
        if name not in changing and not name.startswith("ccstore_http_"):
            assert samples[name + suffix, frozenset()] == value
            compared += 1
    assert compared > 25
    assert samples["ccstore_info", frozenset({("version", __version__)})] == 1
    assert samples["ccstore_series", frozenset()] == 2
    assert samples["ccstore_cap_bytes", frozenset()] == 10**9
    assert samples["ccstore_job_runs_total", frozenset({("job", "memory")})] == 0
    assert samples["process_resident_memory_bytes", frozenset()] > 0
    kinds = {kind for name, kind in types.items() if name.startswith("ccstore_")}
    assert kinds == {"counter", "gauge", "histogram"}


async def test_every_line_is_counted_once() -> None:
    """The outcomes of each source add up to what it sent, in both answers."""
    bad = b"nonsense\n" + lines(["h1"]) + b"other,hostname=h1,cluster=birch value=1\n"
    late = lines(["h1"], cluster="birch", time=NOW - 10_000) + lines(
        ["h1"], cluster="birch", time=NOW + 10_000
    )
    async with running(make_config()) as server:
        await post(server, "/api/write", lines(["h1", "h1"], cluster="birch"))
        await post(server, "/api/write", bad)
        await fill(server.services, late)
        samples, _, stats = await read(server)
    counted = {
        dict(labels)["outcome"]: value
        for (name, labels), value in samples.items()
        if name == "ccstore_lines_total" and ("source", "http") in labels
    }
    expected = dict.fromkeys(
        ("stored", "overwritten", "bad_line", "refused_component", "unknown_metric", "late", "future"), 1
    )
    assert {outcome: value for outcome, value in counted.items() if value} == expected
    counts = stats["lines"]
    assert isinstance(counts, dict)
    assert counts["received"] == sum(expected.values())
    assert counts["by_source"]["http"] == {outcome: counts[outcome] for outcome in counted}


async def test_counters_never_go_back() -> None:
    """Whatever happens in between, a second look finds no smaller counter."""
    async with running(make_config()) as server:
        await post(server, "/api/write", lines(["h1"], cluster="birch"))
        before, types, _ = await read(server)
        await post(server, f"/api/free?to={NOW + 1000}", b"[[]]")
        await post(server, "/api/write", lines(["h2"], cluster="birch"))
        after, _, _ = await read(server)
    counters = [key for key in before if types.get(key[0].removesuffix("_total")) == "counter"]
    assert len(counters) > 10
    assert all(before[key] <= after[key] for key in counters)
    assert after["ccstore_freed_chunks_total", frozenset()] == 1
    assert after["ccstore_series", frozenset()] == 1


async def test_requests_are_counted_by_route_and_status() -> None:
    """Those for no route together, whatever their path; a HEAD as a GET; the times are there as well."""
    async with running(make_config()) as server:
        await post(server, "/api/write", lines(["h1"], cluster="birch"))
        await post(server, "/api/write/", b"nonsense")
        for path in ("/a", "/b", "/api/nothing"):
            await get(server, path)
        await ask(server.port, "HEAD", "/api/stats")
        await ask(server.port, "PUT", "/api/stats")
        await wait_until(lambda: not server.services.traffic.running)
        samples, types, stats = await read(server)
    requests = {
        (dict(labels)["route"], dict(labels)["status"]): value
        for (name, labels), value in samples.items()
        if name == "ccstore_http_requests_total"
    }
    assert requests == {
        ("/api/write", "200"): 1, ("/api/write", "400"): 1, ("/api/stats", "200"): 1,
        ("other", "404"): 3, ("other", "405"): 1,
    }  # fmt: skip
    route = ("route", "/api/write")
    assert types["ccstore_http_request_seconds"] == "histogram"
    assert samples["ccstore_http_request_seconds_count", frozenset({route})] == 2
    assert samples["ccstore_http_request_seconds_bucket", frozenset({route, ("le", "+Inf")})] == 2
    assert 0 < samples["ccstore_http_request_seconds_sum", frozenset({route})] < 60
    assert samples["ccstore_http_running_requests", frozenset()] == 1
    assert samples["ccstore_http_accepted_connections_total", frozenset()] == 8
    assert samples["ccstore_http_received_bytes_total", frozenset()] > 300
    routes = stats["routes"]
    assert isinstance(routes, dict)
    assert routes["/api/write"].items() >= {"requests": 2, "errors": 1}.items()


async def test_connections_and_requests_under_way() -> None:
    """A request that waits for its body is one; when its client leaves, it ends."""
    async with running(make_config()) as server:
        traffic = server.services.traffic
        async with connected(server.port) as client:
            await client.send_head("POST", "/api/query", [("Content-Length", "100")])
            await wait_until(lambda: traffic.running == 1)
            assert (traffic.connections, traffic.requests) == (1, {})
        await wait_until(lambda: traffic.connections == 0)
        assert (traffic.running, traffic.requests) == (0, {("/api/query", 400): 1})


async def test_the_age_of_checkpoints() -> None:
    """It begins anew with each checkpoint of all that a shard has, even if that is nothing."""
    async with running(with_store(make_config(), shards=2)) as server:
        durability = server.services.durability
        assert durability is not None
        first, second = durability.wal.shards
        durability.checkpoints.started -= 100
        assert durability.checkpoints.age(first) >= 100
        await durability.checkpoints.save_all()
        ages = [durability.checkpoints.age(shard) for shard in (first, second)]
        samples, _, stats = await read(server)
    assert max(ages) < 100
    assert samples["ccstore_checkpoint_age_seconds", frozenset({("shard", "1")})] < 100
    assert isinstance(stats["shards"], dict)
    assert list(stats["shards"]) == ["0", "1"]


def test_a_histogram() -> None:
    """A value belongs to the first bound that it does not exceed."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.observe(value)
    assert list(histogram.cumulated()) == [(1.0, 2), (2.0, 3), (float("inf"), 4)]
    assert (histogram.count, histogram.sum) == (4, 6.0)
