"""Jobs in the database against a dict of jobs, whatever happens to them in whatever order."""

from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import evolve
from disk_registry import NOW, job, open_new, rows
from effort import EXAMPLES
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ccstore.disk.registry import jobs
from ccstore.model import Job, JobFilter, JobRefusal, JobState, JobStop, RefusedJob, Resource, Tag

Key = tuple[int, str, int]

numbers = st.integers(1, 3)
clusters = st.sampled_from(["c", "d"])
times = st.sampled_from([NOW + hours * 3600 for hours in (0, 1, 23, 24, 47, 48, 100)])


class Registry(RuleBasedStateMachine):
    """What is done to the database is done to a dict by (number, cluster, start), in the order of storing."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[Key, Job] = {}
        self.cached: list[Key] = []
        self.main: list[Key] = []

    @initialize()
    def begin(self) -> None:
        """Make a database."""
        self.directory = TemporaryDirectory()
        self.database = open_new(Path(self.directory.name))

    def teardown(self) -> None:
        """Close it, and look at the file once more."""
        self.database.close()
        assert rows(self.database.path, "PRAGMA integrity_check") == [("ok",)]
        self.directory.cleanup()

    @rule(number=numbers, cluster=clusters, time=times, tagged=st.booleans(), smt=st.integers(0, 2))
    def start(self, number: int, cluster: str, time: int, tagged: bool, smt: int) -> None:
        """Start a job, which may be one that is known."""
        tags = (Tag("t", "n"),) if tagged else ()
        new = job(number, time, cluster=cluster, tags=tags, smt=smt, resources=(Resource(f"h{number}"),))
        outcome = jobs.start_job(self.database, new)
        known = any((n, c) == (number, cluster) and abs(start - time) < 86400 for n, c, start in self.jobs)
        if known:
            assert isinstance(outcome, RefusedJob)
            assert outcome.why is JobRefusal.DUPLICATE
            return
        assert isinstance(outcome, Job)
        key = (number, cluster, time)
        self.jobs[key] = new
        (self.main if tagged or smt > 1 else self.cached).append(key)

    @rule(number=numbers, cluster=clusters | st.just(""), begun=times | st.just(0), time=times)
    def stop(self, number: int, cluster: str, begun: int, time: int) -> None:
        """Stop a job, if there is one and it runs."""
        outcome = jobs.stop_job(self.database, JobStop(number, time, cluster, begun))
        key = next(
            (
                one
                for table in (self.cached, self.main)
                for one in reversed(table)
                if one[0] == number and cluster in ("", one[1]) and begun in (0, one[2])
            ),
            None,
        )
        if key is None or self.jobs[key].state is not JobState.RUNNING or time < key[2]:
            assert isinstance(outcome, RefusedJob)
            return
        assert isinstance(outcome, Job)
        assert (outcome.job_id, outcome.cluster, outcome.start_time) == key
        self.end(key, JobState.COMPLETED, time - key[2])

    def end(self, key: Key, state: JobState, duration: int) -> None:
        """Note the end of a job, which is in the main table then."""
        self.jobs[key] = evolve(self.jobs[key], state=state, duration=duration)
        if key in self.cached:
            self.cached.remove(key)
            self.main.append(key)

    @rule()
    def commit(self) -> None:
        """Empty the cache into the main table."""
        assert jobs.commit_cache(self.database) == len(self.cached)
        self.main += self.cached
        self.cached.clear()

    @rule(time=times)
    def sweep(self, time: int) -> None:
        """End the jobs beyond their walltime, which is an hour."""
        swept = jobs.stop_overdue(self.database, time, 60)
        overdue = [
            key
            for table in (self.cached, self.main)
            for key in table
            if self.jobs[key].state is JobState.RUNNING and key[2] + 3660 < time
        ]
        assert sorted((one.job_id, one.cluster, one.start_time) for one in swept) == sorted(overdue)
        for key in overdue:
            self.end(key, JobState.FAILED, 3600)

    @rule()
    def refresh(self) -> None:
        """Refresh the durations of running jobs, which reading does not depend on."""
        running = sum(one.state is JobState.RUNNING for one in self.jobs.values())
        assert jobs.refresh_durations(self.database, NOW + 10) == running

    @invariant()
    def every_job_once(self) -> None:
        """Each job is there as it is known, once, in the table where it belongs."""
        found = jobs.find_jobs(self.database, JobFilter(), limit=99, now=NOW)
        assert {
            (one.job_id, one.cluster, one.start_time): evolve(one, id=0, cached=False) for one in found
        } == {key: self.read(one) for key, one in self.jobs.items()}
        assert len(found) == len(self.jobs)
        for table, keys in (("job_cache", self.cached), ("job", self.main)):
            text = f"SELECT job_id, cluster, start_time FROM {table} ORDER BY id"
            assert rows(self.database.path, text) == keys

    @invariant()
    def hosts_of_running_jobs(self) -> None:
        """Used are the hosts of those that run."""
        hosts: dict[str, set[str]] = {}
        for number, cluster, _ in [k for k, one in self.jobs.items() if one.state is JobState.RUNNING]:
            hosts.setdefault(cluster, set()).add(f"h{number}")
        expected = {cluster: sorted(names) for cluster, names in hosts.items()}
        assert jobs.used_nodes(self.database, NOW + 10**6).hosts == expected

    @staticmethod
    def read(one: Job) -> Job:
        """Return a job as it is read at `NOW`, before or after it began."""
        return evolve(one, duration=max(0, NOW - one.start_time)) if one.state is JobState.RUNNING else one


Registry.TestCase.settings = settings(
    max_examples=max(EXAMPLES // 5, 20), stateful_step_count=30, deadline=None
)
TestRegistry = Registry.TestCase
