"""The simulated site: lines as collectors send them, values that hardware could have, jobs in turn."""

import hashlib
import itertools
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.cli.site import MIXED, NODE_TYPES, Detail, make_site
from ccstore.cli.site.applications import ACCELERATED, APPLICATIONS, USUAL, Demand
from ccstore.cli.site.lines import encode_numbers
from ccstore.cli.site.metrics import Form
from ccstore.cli.site.noise import make_keys, noise, wobble
from ccstore.cli.site.quantities import QUANTITIES, Load
from ccstore.config import DEFAULT_METRICS
from ccstore.model import Aggregation
from ccstore.wire.lineprotocol import parse_line, value_of

ROOT = Path(__file__).parents[1]
NOW = 1_700_000_000
HOURS = 3600
LINE = re.compile(
    rb"(?P<metric>[a-z0-9_]+),cluster=(?P<cluster>[a-z]+),hostname=(?P<host>[a-z0-9]+)"
    rb"(?P<tags>(?:,stype=(?:network|filesystem|disk),stype-id=[a-z0-9/]+)?,type=node"
    rb"|,type=(?:socket|memoryDomain|core|hwthread),type-id=[0-9]+"
    rb"|,type=accelerator,type-id=[0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.0)"
    rb" value=(?P<value>[0-9.e+]+i?) (?P<time>[0-9]+)"
)


def lines_of(site, time=NOW, **options):
    """Return all lines of an interval."""
    return b"".join(message.payload for message in site.messages(time, **options)).splitlines()


def values_of(site, time=NOW):
    """Return the values of an interval as {(host, metric): {tags: value}}."""
    values = defaultdict(dict)
    for line in lines_of(site, time):
        match = LINE.fullmatch(line)
        assert match, line
        key = match["host"].decode(), match["metric"].decode()
        values[key][match["tags"].decode()] = float(match["value"].rstrip(b"i"))
    return values


def go_text(value):
    """Write a float as Go's ``strconv.FormatFloat(value, 'g', -1, 64)`` does, which collectors use."""
    digits, exponent = f"{value:.17e}".split("e")
    for precision in range(17):
        digits, exponent = f"{value:.{precision}e}".split("e")
        if float(f"{digits}e{exponent}") == value:
            break
    power = int(exponent)
    if not -4 <= power < 6 and value:
        return f"{digits}e{'-' if power < 0 else '+'}{abs(power):02d}"
    return f"{value:.{max(0, len(digits.replace('.', '')) - 1 - power)}f}"


# Lines.


def test_lines_are_what_collectors_send():
    """Tags are sorted by key, the value is the only field, and the grammar of the store takes each line."""
    site = make_site(8)
    lines = lines_of(site)
    assert len(lines) == site.series
    assert len({line.partition(b" ")[0] for line in lines}) == site.series
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        tags = [tag.partition(b"=")[0] for tag in line.partition(b" ")[0].split(b",")[1:]]
        assert tags == sorted(tags)
        assert match["time"] == b"%d" % NOW
        assert match["metric"].decode() in DEFAULT_METRICS
        parsed = parse_line(line, 0, len(line))
        assert value_of(parsed) == float(match["value"].rstrip(b"i"))


def test_every_line_ends_with_a_line_feed():
    """Messages can be put together without anything between them."""
    for message in make_site(4).messages(NOW):
        assert message.payload.endswith(b"\n")
        assert message.payload.count(b"\n") == message.lines
        assert b"\0" not in message.payload


def test_the_form_of_a_number_follows_from_its_unit():
    """Counts are integers, everything else is a float."""
    for line in lines_of(make_site(8)):
        match = LINE.fullmatch(line)
        unit = DEFAULT_METRICS[match["metric"].decode()].unit
        assert match["value"].endswith(b"i") == (unit in ("operations", "packets/s"))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 93.1, 0.0001, 123456.75, 999999.0, 1e6, 1.25e9, 212.0])
def test_how_go_writes_numbers(value):
    """The model that the next test relies on agrees with examples of the real thing."""
    examples = {0.0: "0", 0.5: "0.5", 1.0: "1", 93.1: "93.1", 0.0001: "0.0001", 123456.75: "123456.75",
                999999.0: "999999", 1e6: "1e+06", 1.25e9: "1.25e+09", 212.0: "212"}  # fmt: skip
    assert go_text(value) == examples[value]


@given(st.lists(st.floats(0, 9999.9), min_size=1))
def test_decimals_are_short_and_exact_to_four_digits(values):
    """The text is the shortest of its own number, which is the value rounded to 0.0001."""
    for value, text in zip(values, _encode(values, Form.DECIMAL), strict=True):
        assert text == go_text(float(text))
        assert float(text) == pytest.approx(value, abs=0.000051)


@given(
    st.lists(
        st.one_of(
            st.floats(0, 9.99e12),
            st.floats(0, 2e6),
            st.sampled_from([9999.99995, 9999.9999, 1e4, 999_999.994, 999_999.995]),
            st.sampled_from([1e6, 9_999_499.0, 9_999_500.0, 1e12]),
        ),
        min_size=1,
    )
)  # fmt: skip
def test_rates_are_short_and_exact_to_four_digits(values):
    """Up to a million they are decimals, from there on they have four digits and an exponent."""
    for value, text in zip(values, _encode(values, Form.RATE), strict=True):
        assert text == go_text(float(text))
        assert float(text) == pytest.approx(value, rel=0.000501, abs=0.000051)


@given(st.lists(st.floats(0, 99_999_999), min_size=1))
def test_integers_are_rounded(values):
    """They have an i behind them and no zeros before."""
    for value, text in zip(values, _encode(values, Form.INTEGER), strict=True):
        assert text == f"{round(value)}i"


def _encode(values, form):
    whole, rest = encode_numbers(np.array(values), form)
    return [(a + b).decode() for a, b in zip(whole, rest, strict=True)]


@pytest.mark.parametrize(("ticks", "digits"), [(1, 10), (1000, 13), (10**6, 16), (10**9, 19)])
def test_times_are_those_of_each_host_in_any_unit(ticks, digits):
    """Hosts measure one after the other within the skew, in the order in which they send."""
    site = make_site(40)
    offsets, times = [], []
    for message in site.messages(NOW, skew=8.0, ticks=ticks):
        stamps = {line.rpartition(b" ")[2] for line in message.payload.splitlines()}
        assert len(stamps) == 1
        (stamp,) = stamps
        assert len(stamp) == digits
        times.append(int(stamp))
        offsets.append(message.offset)
    assert offsets == sorted(offsets)
    assert (offsets[0], offsets[-1]) == (0.0, 8.0 * 39 / 40)
    assert times == [NOW * ticks + int(offset * ticks) for offset in offsets]


@pytest.mark.parametrize("batch", [2, 7, 1000])
def test_a_batch_is_the_lines_of_its_hosts(batch):
    """Whatever the batch, the same lines are sent in the same order, and it is due when its last host is."""
    site = make_site(50)
    single = list(site.messages(NOW, skew=10.0))
    together = list(site.messages(NOW, skew=10.0, batch=batch))
    assert b"".join(m.payload for m in together) == b"".join(m.payload for m in single)
    assert [m.hosts for m in together] == [len(part) for part in _parts(single, batch)]
    assert [m.lines for m in together] == [sum(m.lines for m in part) for part in _parts(single, batch)]
    assert [m.offset for m in together] == [part[-1].offset for part in _parts(single, batch)]


def _parts(items, size):
    return [items[first : first + size] for first in range(0, len(items), size)]


# Determinism.


def test_two_processes_agree():
    """A site is a function of its arguments and the time."""
    program = (
        "import hashlib, sys; from ccstore.cli.site import make_site; "
        "site = make_site(6, cluster='x', seed=7); "
        f"print(hashlib.sha256(b''.join(m.payload for m in site.messages({NOW}))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    here = b"".join(m.payload for m in make_site(6, cluster="x", seed=7).messages(NOW))
    assert hashlib.sha256(here).hexdigest() == done.stdout.strip()


def test_the_way_to_a_moment_does_not_matter():
    """The past can be made up after the present, and changes nothing."""
    site = make_site(10)
    forwards = [lines_of(site, NOW + step) for step in range(0, 30 * HOURS, 5 * HOURS)]
    backwards = [lines_of(site, NOW + step) for step in reversed(range(0, 30 * HOURS, 5 * HOURS))]
    assert forwards == backwards[::-1]


def test_another_seed_is_another_site():
    """The series stay the same; jobs and values do not."""
    one, other = make_site(10, seed=1), make_site(10, seed=2)
    assert [line.partition(b" ")[0] for line in lines_of(one)] == [
        line.partition(b" ")[0] for line in lines_of(other)
    ]
    assert one.running_jobs(NOW) != other.running_jobs(NOW)
    same = sum(a == b for a, b in zip(lines_of(one), lines_of(other), strict=True))
    assert same < one.series / 4


def test_noise_is_even_and_has_no_memory():
    """Its mean is a half, and neighbours in place and time have nothing to do with each other."""
    keys = make_keys(200, 50, seed=3)
    values = np.stack([noise(keys, NOW + second) for second in range(20)])
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    for axis in range(3):
        neighbours = (
            np.take(values, range(1, values.shape[axis]), axis),
            np.take(values, range(values.shape[axis] - 1), axis),
        )
        assert abs(np.corrcoef(neighbours[0].ravel(), neighbours[1].ravel())[0, 1]) < 0.02


def test_a_wobble_is_smooth():
    """From one second to the next it moves by a fraction of what it moves in a period."""
    keys = make_keys(100, seed=3)
    values = np.stack([wobble(keys, NOW + second, period=60) for second in range(600)])
    assert np.abs(np.diff(values, axis=0)).max() < 0.03
    assert np.ptp(values, axis=0).min() > 0.5


# Hardware.


def test_hosts_have_the_parts_of_their_hardware():
    """Sockets, memory domains, cores, threads and accelerators are those of the node type."""
    parts = defaultdict(set)
    site = make_site(8, topology=MIXED)
    types = {host: NODE_TYPES[name] for _, host, name in site.host_names}
    for (host, _), values in values_of(site).items():
        parts[host].update(re.sub(r".*,type=", "", tags) for tags in values if "stype" not in tags)
    assert {node.name for node in types.values()} == set(NODE_TYPES)
    for host, node in types.items():
        counts = Counter(part.partition(",")[0] for part in parts[host])
        assert counts == {
            "node": 1,
            "socket": 2,
            "memoryDomain": node.memory_domains,
            "core": node.threads // node.smt,
            "hwthread": node.threads,
            **({"accelerator": 8} if node.accelerators else {}),
        }


def test_the_node_types_are_those_that_sites_have():
    """Threads of a node, and second threads where there are some."""
    figures = {
        name: (node.threads, node.smt, node.memory_domains, len(node.accelerators))
        for name, node in NODE_TYPES.items()
    }
    assert figures == {
        "cpu72": (72, 1, 8, 0),
        "cpu128": (128, 1, 8, 0),
        "gpu8": (128, 1, 8, 8),
        "smt40": (40, 2, 2, 0),
    }  # fmt: skip


def test_subtypes_stand_under_the_node():
    """Interfaces, file systems and disks are named as on a real host."""
    host = values_of(make_site(1, topology="gpu8"))
    assert set(host["m0101", "ib_recv"]) == {f",stype=network,stype-id={i},type=node" for i in ("ib0", "ib1")}
    assert set(host["m0101", "disk_free"]) == {
        f",stype=filesystem,stype-id={d},type=node" for d in ("/", "/tmp")
    }
    assert set(host["m0101", "io_reads"]) == {",stype=disk,stype-id=nvme0n1,type=node"}


def test_all_built_in_metrics_are_sent():
    """Each has one formula; only what needs accelerators is missing without them."""
    assert sorted(quantity.metric for quantity in QUANTITIES) == sorted(DEFAULT_METRICS)
    sent = {metric for _, metric in values_of(make_site(1, topology="gpu8"))}
    assert sent == set(DEFAULT_METRICS)
    without = {metric for _, metric in values_of(make_site(1, topology="cpu72"))}
    assert set(DEFAULT_METRICS) - without == {
        metric for metric in DEFAULT_METRICS if metric.startswith("acc_")
    }


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 5, 16, 100, 999])
def test_a_mixed_site_has_as_many_hosts_as_asked_for(hosts):
    """They are shared out without rounding any away, and each has a name of its own."""
    site = make_site(hosts)
    assert site.hosts == hosts
    names = [host for _, host, _ in site.host_names]
    assert len(set(names)) == hosts
    assert all(re.fullmatch(r"[abmw]\d{4}", name) for name in names)


def test_a_large_site_has_the_size_of_a_real_one():
    """2 000 hosts have some 900 000 series, and names of one length also where racks go beyond 99."""
    assert 850_000 < make_site(2000).series < 1_050_000
    assert {len(host) for _, host, _ in make_site(10_000, topology="cpu72").host_names} == {6}


def test_clusters():
    """Each node type is a cluster of its own, unless all hosts are to be in one."""
    assert {cluster for cluster, _, _ in make_site(10).host_names} == {"alder", "beech", "maple", "willow"}
    assert {cluster for cluster, _, _ in make_site(10, cluster="one").host_names} == {"one"}
    assert all(b",cluster=one," in line for line in lines_of(make_site(10, cluster="one")))


@pytest.mark.parametrize("topology", NODE_TYPES)
def test_detail_is_about_the_size_of_parts(topology):
    """The same host tells more or less of itself."""
    sizes = [make_site(1, topology=topology, detail=detail).series for detail in Detail]
    assert sizes == sorted(sizes)
    assert sizes[0] <= 60
    assert sizes[2] > 1.9 * sizes[1]


@pytest.mark.parametrize("topology", NODE_TYPES)
@pytest.mark.parametrize("detail", [Detail.USUAL, Detail.FULL])
def test_parts_combine_to_the_host(topology, detail):
    """Summed or averaged as the metric says, they give what the host as a whole does, but for noise."""
    compared = 0
    for time in range(NOW, NOW + 40 * HOURS, 4 * HOURS):
        fine = values_of(make_site(3, topology=topology, detail=detail), time)
        coarse = values_of(make_site(3, topology=topology, detail=Detail.HOST), time)
        for key, parts in fine.items():
            jitter = next(q.jitter for q in QUANTITIES if q.metric == key[1])
            if len(parts) == 1 or jitter > 0.1:
                continue
            combined = sum(parts.values())
            if DEFAULT_METRICS[key[1]].aggregation is Aggregation.AVG:
                combined /= len(parts)
            assert combined == pytest.approx(sum(coarse[key].values()), rel=jitter + 0.001, abs=0.02), key
            compared += 1
    assert compared > 200


# Values.


@pytest.mark.parametrize("topology", NODE_TYPES)
def test_nothing_exceeds_the_hardware(topology):
    """Over a day and many jobs, every value could have been measured on such a node."""
    node = NODE_TYPES[topology]
    site = make_site(20, topology=topology, detail=Detail.HOST)
    limits = {
        "cpu_load": node.threads,
        "mem_used": node.memory,
        "flops_dp": node.flops,
        "flops_any": 2 * node.flops,
        "mem_bw": node.bandwidth,
        "cpu_power": node.sockets * node.socket_power,
        "clock": node.clock,
        "temp": 90,
        "ib_recv": len(node.fabric) * node.fabric_rate,
        "ib_xmit": len(node.fabric) * node.fabric_rate,
        "acc_power": len(node.accelerators) * node.accelerator_power,
        "acc_mem_used": len(node.accelerators) * node.accelerator_memory,
        "acc_temp": 80,
    }
    for time in range(NOW, NOW + 24 * HOURS, 20 * 60):
        values = {key: sum(parts.values()) for key, parts in values_of(site, time).items()}
        for (_, metric), value in values.items():
            limit = 100.0 if DEFAULT_METRICS[metric].unit == "%" else limits.get(metric, np.inf)
            assert 0.0 <= value <= limit, metric
        for _, host, _ in site.host_names:
            assert sum(values[host, f"mem_{part}"] for part in ("used", "cached", "free")) == pytest.approx(
                node.memory, abs=0.001
            )
            shares = sum(values[host, f"cpu_{part}"] for part in ("user", "system", "iowait", "irq", "idle"))
            assert shares == pytest.approx(100, abs=1.1)
            parts = ["cpu_power", "mem_power", *(["acc_power"] if node.accelerators else [])]
            assert values[host, "node_total_power"] > sum(values[host, part] for part in parts)


def test_hosts_without_a_job_are_idle():
    """They keep their floors: some power, some memory, no flops."""
    site = make_site(60, topology="cpu72", detail=Detail.HOST)
    busy = {host for job in site.running_jobs(NOW) for host in job.hosts}
    idle = {host for _, host, _ in site.host_names} - busy
    assert idle
    values = {key: sum(parts.values()) for key, parts in values_of(site).items()}
    for host in idle:
        assert values[host, "flops_any"] == 0
        assert values[host, "cpu_load"] < 0.1
        assert 100 < values[host, "cpu_power"] < 150
        assert 5 < values[host, "mem_used"] < 10


@pytest.mark.parametrize("application", [name for name in APPLICATIONS if name != "notebook"])
def test_a_job_shows_its_character(application):
    """Whoever looks at the right metric for an hour sees what a job is."""
    node = NODE_TYPES["gpu8" if application == "training" else "cpu72"]
    sites = (make_site(100, topology=node.name, detail=Detail.HOST, seed=seed) for seed in itertools.count())
    site, job = next(
        (site, job)
        for site in sites
        for job in site.running_jobs(NOW)
        if job.application == application and job.stop > NOW + HOURS and job.start < NOW - 120
    )
    seen = defaultdict(list)
    for time in range(NOW, NOW + HOURS, 60):
        for (host, metric), parts in values_of(site, time).items():
            if host == job.hosts[0]:
                seen[metric].append(sum(parts.values()))
    signs = {
        "dense": min(seen["flops_any"]) > 0.2 * node.flops,
        "stencil": min(seen["mem_bw"]) > 0.65 * node.bandwidth,
        "climate": max(seen["lustre_write_bw"]) > 1e8 and min(seen["lustre_write_bw"]) == 0,
        "molecular": min(seen["ib_recv"]) > 0.2 * node.fabric_rate,
        "sweep": 0.05 * node.threads < min(seen["cpu_load"]) <= max(seen["cpu_load"]) < 0.8 * node.threads,
        "assembly": seen["mem_used"][-1] - seen["mem_used"][0] > 20 and min(np.diff(seen["mem_used"])) > -4,
        "training": application != "training"
        or max(seen["acc_utilization"]) > 75 > 20 > min(seen["acc_utilization"]),
    }
    assert signs[application], seen


def test_a_badly_balanced_job_leaves_its_last_threads_idle():
    """Its first thread does more than its last."""
    site = make_site(200, topology="cpu72")
    job = next(job for job in site.running_jobs(NOW) if job.application == "sweep")
    flops = values_of(site)[job.hosts[0], "flops_any"]
    assert flops[",type=hwthread,type-id=0"] > 1.5 * flops[",type=hwthread,type-id=71"]


traits = st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3)


@pytest.mark.parametrize("application", APPLICATIONS)
@given(st.floats(0, 1), st.floats(300, 6 * HOURS), traits)
def test_demands_are_shares(application, share, length, traits):
    """At no time does a job ask for more than there is."""
    demand = APPLICATIONS[application](share * length, length, traits)
    assert all(0.0 <= value <= 1.0 for value in attrs.astuple(demand))


def test_a_load_has_the_columns_of_a_demand():
    """And the warmth of the host behind them, in this order: it is filled by position."""
    names = [[field.name for field in attrs.fields(cls)] for cls in (Demand, Load)]
    assert names[1] == [*names[0], "warmth"]


def test_every_application_runs_somewhere():
    """What can be run is in one of the two lists, and these name nothing else."""
    assert set(USUAL) | set(ACCELERATED) == set(APPLICATIONS)


# Jobs.


def test_jobs_never_overlap_on_a_host():
    """Over two days, each host has at most one at a time, and they are what the site tells of."""
    site = make_site(70)
    jobs = {}
    for time in range(NOW, NOW + 48 * HOURS, 300):
        running = site.running_jobs(time)
        assert all(job.start <= time < job.stop for job in running)
        assert [job.start for job in running] == sorted((job.start for job in running), reverse=True)
        for job in running:
            assert jobs.setdefault(job.job_id, job) == job
    spans = defaultdict(list)
    for job in jobs.values():
        for host in job.hosts:
            spans[job.cluster, host].append((job.start, job.stop))
    assert set(spans) == {(cluster, host) for cluster, host, _ in site.host_names}
    for host_spans in spans.values():
        host_spans.sort()
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(host_spans))


def test_jobs_come_in_all_sizes():
    """Many have one host, some have many, and they take from minutes to hours."""
    jobs = [job for step in range(8) for job in make_site(300).running_jobs(NOW + step * 6 * HOURS)]
    sizes = Counter(len(job.hosts) for job in jobs)
    assert sizes[1] == max(sizes.values())
    assert max(sizes) == 32
    minutes = [(job.stop - job.start) / 60 for job in jobs]
    assert min(minutes) < 20
    assert max(minutes) > 100
    assert len({job.user for job in jobs}) > 8


def test_most_hosts_are_in_use():
    """But not all of them, ever."""
    site = make_site(300)
    for time in range(NOW, NOW + 24 * HOURS, HOURS):
        busy = sum(len(job.hosts) for job in site.running_jobs(time))
        assert 0.6 * site.hosts < busy < site.hosts
