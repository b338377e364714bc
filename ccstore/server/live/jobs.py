"""Jobs as streams know them: one that somebody wants to follow, and its end."""

from attrs import frozen

from ccstore.model import Job, JobKey, JobState
from ccstore.server.live.feed import JobEnd
from ccstore.wire.stream import JobWanted, SeriesWanted

__all__ = ["Followed", "end_of", "key_of"]


@frozen
class Followed:
    """A job that was looked up for somebody."""

    wanted: JobWanted
    """With the whole name of the job, so it is the same for all who mean this job."""
    job: Job
    series: SeriesWanted | None
    """What it stands for; None if a feed of it has them."""


def key_of(job: Job) -> JobKey:
    """Return the whole name of a job."""
    return JobKey(job.cluster, job.job_id, job.start_time)


def end_of(job: Job) -> JobEnd | None:
    """Return how a job ended; None if it runs."""
    if job.state is JobState.RUNNING:
        return None
    return JobEnd(job.state.value, job.start_time + job.duration)
