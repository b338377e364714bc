"""Starts and stops of jobs as JSON: what is taken, in which order it is checked, and what clients read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.errors import ProtocolError
from ccstore.model import Job, JobState, JobStop, Resource, Tag
from ccstore.wire.jobs import (
    check_job,
    decode_job_start,
    decode_job_stop,
    decode_resources,
    encode_job,
    encode_jobs,
    encode_resources,
)

LEAST: dict[str, Any] = {
    "cluster": "c", "jobId": 1, "startTime": 1700000000, "user": "u", "numNodes": 1,
    "resources": [{"hostname": "h"}],
}  # fmt: skip

EVERYTHING: dict[str, Any] = {
    "cluster": "c", "subCluster": "s", "jobId": 5, "startTime": 1700000000, "user": "u", "project": "p",
    "partition": "q", "shared": "multi_user", "numNodes": 2, "numHwthreads": 3, "numAcc": 4, "smt": 2,
    "walltime": 3600, "arrayJobId": 6, "submitTime": 1699999999, "monitoringStatus": 0,
    "resources": [
        {"hostname": "h1", "hwthreads": [0, 1], "accelerators": ["00000000:49:00.0"], "configuration": "x"},
        {"hostname": "h2"},
    ],
    "metaData": {"jobName": "name", "jobScript": "#!/bin/sh"},
    "tags": [{"type": "t", "name": "n", "scope": "u", "id": 7}, {"type": "t", "name": "m"}],
}  # fmt: skip
NOT_KEPT: dict[str, Any] = {
    "jobState": "pending", "requestedMemory": 9, "duration": 9, "energy": 1.5, "footprint": {"a": 1},
    "energyFootprint": {}, "statistics": {"m": {"avg": 1}}, "concurrentJobs": {"count": 0}, "id": 9,
}  # fmt: skip

JOB = Job(
    cluster="c", subcluster="s", job_id=5, start_time=1700000000, user="u", project="p", partition="q",
    shared="multi_user", num_nodes=2, num_hwthreads=3, num_acc=4, smt=2, walltime=3600, array_job_id=6,
    submit_time=1699999999, monitoring_status=0,
    resources=(Resource("h1", (0, 1), ("00000000:49:00.0",), "x"), Resource("h2")),
    metadata={"jobName": "name", "jobScript": "#!/bin/sh"},
    tags=(Tag("t", "n", "u"), Tag("t", "m", "global")),
)  # fmt: skip


def dump(body: Any) -> bytes:
    """Write a body."""
    return json.dumps(body).encode()


def test_a_start_with_everything() -> None:
    """Every key fills its field; what has no place is accepted, and whatever its state, the job runs."""
    assert decode_job_start(dump(EVERYTHING | NOT_KEPT)) == JOB
    assert JOB.state is JobState.RUNNING


def test_the_defaults_of_a_start() -> None:
    """What is missing, or null, is empty, 0, ``none``, or 1 for the monitoring."""
    nulls = dict.fromkeys(set(EVERYTHING) - set(LEAST) | set(NOT_KEPT))
    expected = Job("c", "", 1, 1700000000, "u", num_nodes=1, resources=(Resource("h"),))
    assert (expected.shared, expected.monitoring_status, expected.smt) == ("none", 1, 0)
    assert expected == decode_job_start(dump(LEAST)) == decode_job_start(dump(LEAST | nulls))


def test_keys_in_any_case() -> None:
    """Keys match whatever their case, also those of hosts and tags."""
    upper = {key.upper(): value for key, value in EVERYTHING.items()}
    upper["RESOURCES"] = [{k.upper(): v for k, v in entry.items()} for entry in EVERYTHING["resources"]]
    upper["TAGS"] = [{k.upper(): v for k, v in entry.items()} for entry in EVERYTHING["tags"]]
    assert decode_job_start(dump(upper)) == JOB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"job": 1}, 'body: unknown key "job"'),
        ({"resources": [{"host": "h"}]}, 'body.resources[0]: unknown key "host"'),
        ({"tags": [{"kind": "t"}]}, 'body.tags[0]: unknown key "kind"'),
        ({"cluster": 1}, "body.cluster: 1 (wanted a string)"),
        ({"subCluster": []}, "body.subCluster: a list (wanted a string)"),
        ({"jobId": "1"}, 'body.jobId: "1" (wanted an integer)'),
        ({"startTime": 1.5}, "body.startTime: 1.5 (wanted an integer)"),
        ({"user": None, "project": False}, "body.project: false (wanted a string)"),
        ({"partition": 1}, "body.partition: 1 (wanted a string)"),
        ({"shared": 0}, "body.shared: 0 (wanted a string)"),
        ({"numNodes": 2**31}, "body.numNodes: 2147483648 (wanted an integer of 32 bits)"),
        ({"numHwthreads": "4"}, 'body.numHwthreads: "4" (wanted an integer of 32 bits)'),
        ({"numAcc": True}, "body.numAcc: true (wanted an integer of 32 bits)"),
        ({"smt": 1.0}, "body.smt: 1.0 (wanted an integer of 32 bits)"),
        ({"walltime": 2**63}, "body.walltime: 9223372036854775808 (wanted an integer)"),
        ({"arrayJobId": {}}, "body.arrayJobId: an object (wanted an integer)"),
        ({"requestedMemory": "1G"}, 'body.requestedMemory: "1G" (wanted an integer)'),
        ({"submitTime": "now"}, 'body.submitTime: "now" (wanted an integer)'),
        ({"monitoringStatus": "1"}, 'body.monitoringStatus: "1" (wanted an integer of 32 bits)'),
        ({"resources": {}}, "body.resources: an object (wanted a list of objects)"),
        ({"resources": [{"hwthreads": ["0"]}]}, 'body.resources[0].hwthreads[0]: "0" (wanted an integer)'),
        ({"resources": [{"accelerators": [0]}]}, "body.resources[0].accelerators[0]: 0 (wanted a string)"),
        ({"resources": [{"configuration": 1}]}, "body.resources[0].configuration: 1 (wanted a string)"),
        ({"metaData": []}, "body.metaData: a list (wanted an object)"),
        ({"metaData": {"a": 1}}, 'body.metaData["a"]: 1 (wanted a string)'),
        ({"tags": "t"}, 'body.tags: "t" (wanted a list of objects)'),
        ({"tags": [{"id": "7"}]}, 'body.tags[0].id: "7" (wanted an integer)'),
        ({"jobState": 1}, "body.jobState: 1 (wanted a string)"),
        ({"energy": "1"}, 'body.energy: "1" (wanted a number)'),
        ({"statistics": []}, "body.statistics: a list (wanted an object)"),
        ({"jobId": 0}, "body.jobId: missing or not positive (got 0, wanted at least 1)"),
        ({"jobId": -1}, "body.jobId: missing or not positive (got -1, wanted at least 1)"),
        ({"startTime": 0}, "body.startTime: no time in seconds since the epoch (got 0)"),
        ({"startTime": 1700000000000},
         "body.startTime: no time in seconds since the epoch (got 1700000000000)"),
        ({"submitTime": -5}, "body.submitTime: no time in seconds since the epoch (got -5)"),
        ({"shared": "yes"}, "body.shared: unknown (got 'yes', wanted one of none, single_user, multi_user)"),
        ({"monitoringStatus": 4}, "body.monitoringStatus: unknown (got 4, wanted 0 to 3)"),
        ({"monitoringStatus": -1}, "body.monitoringStatus: unknown (got -1, wanted 0 to 3)"),
    ],
    ids=str,
)  # fmt: skip
def test_starts_that_are_refused(change: dict[str, Any], message: str) -> None:
    """A message names the place, what stands there, and what was wanted."""
    with pytest.raises(ProtocolError) as caught:
        decode_job_start(dump(LEAST | change))
    assert message == str(caught.value)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'"x"'])
@pytest.mark.parametrize("decode", [decode_job_start, decode_job_stop])
def test_bodies_that_are_no_objects(decode: Any, body: bytes) -> None:
    """They are refused."""
    with pytest.raises(ProtocolError, match=r"^body: "):
        decode(body)


CHECKS: list[tuple[dict[str, Any], str]] = [
    ({"resources": []}, "body.resources: empty (wanted an object for each host)"),
    ({"user": ""}, "body.user: empty (wanted a name)"),
    ({"numNodes": 0}, "body.numNodes: too small (got 0, wanted at least 1)"),
    ({"numHwthreads": -1}, "body.numHwthreads: too small (got -1, wanted at least 0)"),
    ({"numAcc": -2}, "body.numAcc: too small (got -2, wanted at least 0)"),
    ({"smt": -1}, "body.smt: too small (got -1, wanted at least 0)"),
    ({"numNodes": 3}, "body.numNodes: not the number of resources (got 3, wanted 1)"),
]


@pytest.mark.parametrize("first", range(len(CHECKS)), ids=lambda k: next(iter(CHECKS[k][0])))
def test_the_order_of_the_checks(first: int) -> None:
    """With several mistakes, the first check that fails is told; it knows nothing of those before it."""
    body = dict(LEAST)
    for change, _ in reversed(CHECKS[first:]):
        body |= change
    job = decode_job_start(dump(body))
    with pytest.raises(ProtocolError) as caught:
        check_job(job)
    assert CHECKS[first][1] == str(caught.value)


def test_a_start_that_passes() -> None:
    """A job with everything, and one with the least, pass all checks."""
    check_job(decode_job_start(dump(EVERYTHING)))
    check_job(decode_job_start(dump(LEAST)))


def test_stops() -> None:
    """Every key fills its field, and all but the id may be missing."""
    body = {"jobId": 5, "cluster": "c", "startTime": 1, "jobState": "failed", "stopTime": 9}
    assert JobStop(5, 9, "c", 1, "failed") == decode_job_stop(dump(body))
    assert (
        JobStop(5)
        == decode_job_stop(b'{"JOBID":5}')
        == decode_job_stop(dump(dict.fromkeys(body) | {"jobId": 5}))
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "body.jobId: missing or not positive (got 0, wanted at least 1)"),
        ({"jobId": None}, "body.jobId: missing or not positive (got 0, wanted at least 1)"),
        ({"jobId": 1, "user": "u"}, 'body: unknown key "user"'),
        ({"jobId": "1"}, 'body.jobId: "1" (wanted an integer)'),
        ({"jobId": 1, "stopTime": 1.5}, "body.stopTime: 1.5 (wanted an integer)"),
        ({"jobId": 1, "jobState": 3}, "body.jobState: 3 (wanted a string)"),
        ({"jobId": 1, "stopTime": 1700000000000},
         "body.stopTime: no time in seconds since the epoch (got 1700000000000)"),
        ({"jobId": 1, "startTime": 1700000000000},
         "body.startTime: no time in seconds since the epoch (got 1700000000000)"),
    ],
    ids=str,
)  # fmt: skip
def test_stops_that_are_refused(body: dict[str, Any], message: str) -> None:
    """Unknown keys, wrong types, times in another unit, and a stop of no job."""
    with pytest.raises(ProtocolError) as caught:
        decode_job_stop(dump(body))
    assert message == str(caught.value)


def test_a_job_as_clients_read_it() -> None:
    """It has the keys of a start, and its row, its duration and its state."""
    written = json.loads(encode_job(JOB))
    expected = EVERYTHING | {"id": 0, "duration": 0, "jobState": "running"}
    expected["tags"] = [
        {"type": "t", "name": "n", "scope": "u"},
        {"type": "t", "name": "m", "scope": "global"},
    ]
    assert expected == written
    assert decode_job_start(dump(written)) == JOB


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_of_jobs(count: int) -> None:
    """There is an object for each."""
    assert [json.loads(encode_job(JOB))] * count == json.loads(b"".join(encode_jobs([JOB] * count)))["jobs"]


def test_hosts_as_they_are_stored() -> None:
    """What a host has nothing of is left out, and the way back gives the same."""
    assert encode_resources(JOB.resources) == (
        '[{"hostname":"h1","hwthreads":[0,1],"accelerators":["00000000:49:00.0"],"configuration":"x"},'
        '{"hostname":"h2"}]'
    )
    assert decode_resources(encode_resources(JOB.resources)) == JOB.resources
    assert decode_resources('[{"hostname":"h","later":1}]') == (Resource("h"),)


@pytest.mark.parametrize("text", ["", "{}", "null", '["h"]', '[{"hostname":1}]', "[{"])
def test_hosts_that_cannot_be_read(text: str) -> None:
    """They are an error, whoever stored them."""
    with pytest.raises(ProtocolError):
        decode_resources(text)


KEYS = st.sampled_from([*EVERYTHING, *NOT_KEPT, "stopTime", "hostname", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
ENTRIES = st.lists(st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=2), max_size=3), max_size=2)


@given(st.dictionaries(KEYS, SCALARS | ENTRIES, max_size=4), st.booleans())
def test_any_json(change: dict[str, Any], full: bool) -> None:
    """Whatever a body holds, the outcome is a job that can be written again, or a ProtocolError."""
    try:
        job = decode_job_start(dump((LEAST if full else {}) | change))
        check_job(job)
    except ProtocolError as error:
        message = str(error)
    else:
        message = "body"
        assert decode_job_start(encode_job(job)) == job
    assert message.encode().startswith(b"body")
