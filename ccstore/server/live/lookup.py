"""From the name of a job to what streams tell of it.

The registry is asked first, and then it takes a moment to make queries of hosts; the job may end meanwhile,
which neither shows. So the hub collects the ends of that time.
"""

from attrs import evolve

from ccstore.errors import QueryError
from ccstore.server.job_query import find_job, plan_query
from ccstore.server.live.jobs import Followed, key_of
from ccstore.server.services import Services
from ccstore.wire.stream import JobWanted, SeriesWanted

__all__ = ["find_followed"]


async def find_followed(services: Services, wanted: JobWanted) -> Followed:
    """Return a job, as it is now, and the series that it stands for.

    Raises HttpError 404 if there is no such job, UnavailableError if the registry cannot be asked, and
    QueryError if it has too many series.
    """
    hub = services.hub
    with hub.searching() as stopped:
        job = await find_job(services, wanted.query.job)
        whole = evolve(wanted, query=evolve(wanted.query, job=key_of(job)))
        series = None
        if whole not in hub.feeds:  # many clients follow the same job
            if len(job.resources) * len(wanted.query.metrics) > hub.max_series:
                raise QueryError(f"query: more series than {hub.max_series} (wanted fewer)")
            request = evolve(await plan_query(services, job, whole.query), start=0, stop=0)
            series = SeriesWanted(request, wanted.window, wanted.binary, since=job.start_time)
        return Followed(whole, stopped.get(key_of(job), job), series)
