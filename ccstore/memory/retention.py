"""What to free, and up to when: decided here, done elsewhere.

Samples leave memory when they are older than the retention, and earlier if they take more
memory than the cap allows. A host on which a job runs is busy: its samples stay as long as the
job, and only a lack of memory can take them, after all that idle hosts have to give.

Nothing here frees anything: a plan says of which hosts samples may go, and who walks it frees
host by host, lets others run in between, and looks how much memory is left after each step.
"""

from collections.abc import Collection, Iterable, Mapping

from attrs import frozen

__all__ = ["Host", "Release", "UsedHosts", "check_interval", "exceeds", "plan_relief", "plan_retention"]

_SHARES = (0.75, 0.5, 0.25)
_CALM, _TENSE = 300.0, 30.0
_TENSE_RATIO = 0.8

Host = tuple[str, str]
"""Cluster and name."""

UsedHosts = Mapping[str, Collection[str]]
"""By cluster, the hosts with running jobs."""


@frozen
class Release:
    """Samples that may go: of these hosts, all chunks that end before the cutoff."""

    hosts: tuple[Host, ...]
    """In the order of the plan's input."""
    cutoff: int
    """Seconds."""
    share: float = 1.0
    """What is left of the retention: 1 for what is too old anyway, less for lack of memory."""
    busy: bool = False
    """Whether jobs run on these hosts."""


def plan_retention(
    hosts: Iterable[Host], used: UsedHosts | None, *, now: int, retention: int
) -> Release | None:
    """Return what is too old: the samples of idle hosts beyond the retention (seconds).

    used: the busy hosts; None or empty if nobody knows of any, then all hosts are idle.
    None if the retention is 0 or less: then everything is kept.
    """
    if retention <= 0:
        return None
    idle, _ = _split(hosts, used)
    return Release(idle, now - retention)


def plan_relief(hosts: Iterable[Host], used: UsedHosts | None, *, now: int, retention: int) -> list[Release]:
    """Return what to free in turn, until the memory in use is below the cap.

    retention: seconds; where everything is kept, the age of the oldest sample. It is cut to 75, 50
    and 25 %, first for all idle hosts, and then, if that was not enough, for the busy ones.
    """
    idle, busy = _split(hosts, used)
    return [
        Release(group, now - int(share * retention), share, is_busy)
        for group, is_busy in ((idle, False), (busy, True))
        if group
        for share in _SHARES
    ]


def exceeds(bytes_used: int, cap_bytes: int) -> bool:
    """Tell whether memory in use is more than the cap; a cap of 0 is none."""
    return 0 < cap_bytes < bytes_used


def check_interval(bytes_used: int, cap_bytes: int) -> float:
    """Return the seconds until the next look at the memory in use: fewer when the cap is near."""
    return _TENSE if cap_bytes > 0 and bytes_used > _TENSE_RATIO * cap_bytes else _CALM


def _split(hosts: Iterable[Host], used: UsedHosts | None) -> tuple[tuple[Host, ...], tuple[Host, ...]]:
    """Return the idle hosts and the busy ones."""
    names = {cluster: frozenset(busy) for cluster, busy in (used or {}).items()}
    hosts = tuple(hosts)
    busy = tuple(host for host in hosts if host[1] in names.get(host[0], ()))
    idle = tuple(host for host in hosts if host[1] not in names.get(host[0], ()))
    return idle, busy
