"""The nouns of jobs: what a scheduler says of them, and what became of what it said.

A job that a scheduler reports and a job that is stored are the same noun: what only the store knows
(`Job.id`, `Job.duration`, `Job.state`) has the value of a job that begins.
"""

import enum
from collections.abc import Mapping

from attrs import field, frozen

__all__ = [
    "Job",
    "JobFilter",
    "JobKey",
    "JobQuery",
    "JobRefusal",
    "JobState",
    "JobStop",
    "RefusedJob",
    "Resource",
    "Tag",
]


class JobState(enum.Enum):
    """What a scheduler says of a job as a whole."""

    BOOT_FAIL = "boot_fail"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    DEADLINE = "deadline"
    FAILED = "failed"
    NODE_FAIL = "node_fail"
    OUT_OF_MEMORY = "out_of_memory"
    PENDING = "pending"
    PREEMPTED = "preempted"
    RUNNING = "running"
    SUSPENDED = "suspended"
    TIMEOUT = "timeout"


@frozen
class Resource:
    """What a job has of one host."""

    hostname: str = ""
    hwthreads: tuple[int, ...] = ()
    """Empty: all of them."""
    accelerators: tuple[str, ...] = ()
    configuration: str = ""


@frozen
class Tag:
    """A label of a job; type and name together tell one from another."""

    type: str = ""
    name: str = ""
    scope: str = "global"
    """Who may see it: everybody, or a user by name, as the reference's pages have it."""


@frozen
class Job:
    """A job, as it was reported at its start and as far as it has come."""

    cluster: str = ""
    subcluster: str = ""
    """As a request has it, "" means: that of the first host."""
    job_id: int = 0
    """The scheduler's number, above 0. It comes again one day, so it names a job only with a start."""
    start_time: int = 0
    """Seconds since the epoch, above 0."""
    user: str = ""
    project: str = ""
    partition: str = ""
    array_job_id: int = 0
    """0: not one of an array."""
    num_nodes: int = 0
    num_hwthreads: int = 0
    num_acc: int = 0
    smt: int = 0
    shared: str = "none"
    """``none``, ``single_user`` or ``multi_user``: who else is on its hosts."""
    walltime: int = 0
    """Seconds that it may take; 0: not known."""
    submit_time: int = 0
    """Seconds since the epoch; 0: not known."""
    monitoring_status: int = 1
    """0 disabled, 1 running or not archived yet, 2 archiving failed, 3 archived."""
    resources: tuple[Resource, ...] = ()
    metadata: Mapping[str, str] = field(factory=dict)
    tags: tuple[Tag, ...] = ()
    state: JobState = JobState.RUNNING
    duration: int = 0
    """Seconds; of a running job those until now."""
    id: int = 0
    """Number of its row; 0: not stored. Unique among the jobs of one table only."""
    cached: bool = False
    """Whether its row is in the table of jobs that began a short while ago."""


@frozen
class JobStop:
    """The end of a job, as a scheduler reports it."""

    job_id: int = 0
    stop_time: int = 0
    """Seconds since the epoch."""
    cluster: str = ""
    """"": of whatever cluster."""
    start_time: int = 0
    """Seconds since the epoch; 0: the newest job with this number."""
    state: str = ""
    """The state it ends in as a request spells it; "" means completed."""


class JobRefusal(enum.Enum):
    """Why a start or a stop was not stored."""

    DUPLICATE = "duplicate"
    """A job of this number began within a day of it."""
    UNKNOWN = "unknown"
    """There is no such job; its start may still come."""
    NOT_RUNNING = "not running"
    BAD_TIME = "bad time"
    """It would have stopped before it began."""
    BAD_STATE = "bad state"
    """No job ends in this state."""


@frozen
class RefusedJob:
    """A start or a stop that was not stored; nothing changed."""

    why: JobRefusal
    text: str
    """For whoever sent it: where, what (got, wanted)."""


@frozen
class JobFilter:
    """Which jobs are meant; every condition that is given must hold."""

    clusters: tuple[str, ...] = ()
    """Any of these; empty: any at all. So for the next three."""
    states: tuple[JobState, ...] = ()
    users: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Jobs that have at least one of these; empty: any."""


@frozen
class JobKey:
    """What names a job."""

    cluster: str = ""
    """"": of whatever cluster."""
    job_id: int = 0
    start_time: int = 0
    """Seconds since the epoch; 0: the newest job with this number."""


@frozen
class JobQuery:
    """A question for metrics of a job: on all its hosts, as long as it runs."""

    job: JobKey = JobKey()
    metrics: tuple[str, ...] = ()
    scope: str = "node"
    """Which parts of its hosts; see `ccstore.wire.jobquery.SCOPES`."""
    resolution: int = 0
    """Seconds between two values; at most the metric's frequency means all values."""
    start: int = 0
    """Seconds since the epoch; what was before the job's start is left out."""
    stop: int = 2**60
    """Seconds since the epoch; what was after the job's end is left out."""
    with_stats: bool = True
    with_data: bool = True
    with_padding: bool = True
