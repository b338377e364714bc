"""Who computes where and when: the jobs of a simulated site.

Owns the schedule. Invariant: jobs never overlap on a host, and what runs at a moment follows
from the seed and that moment alone, however the moment is reached.

A schedule is usually the outcome of a simulation that has to be run from its beginning. Here it
is cut out of paper: hosts times time is a sheet, cut across or along again and again at random,
and each piece that is left is a job, or a gap. One sheet covers one group of hosts for
six hours; where groups have their sheets at different times, a site never changes all at once.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from attrs import define, field, frozen

from ccstore.cli.site.applications import ACCELERATED, SINGLE, USUAL, Traits

__all__ = ["Job", "Schedule"]

MINUTES = 60
HOURS = 3600

_SHEET = 6 * HOURS
_LONGEST = 2 * HOURS
"""Pieces are cut as long as they are longer, if that is not too many cuts."""
_SHORTEST = 15 * MINUTES
"""Pieces are cut along time only if they are twice as long; so a job may be a little shorter."""
_DEPTH = 7
"""Cuts on the way to a piece, at most: so a sheet has no more than 2 ** 7 pieces."""
_GAP = 0.15
"""How many of the pieces with one host stay empty; of the others, accordingly fewer."""
_USERS = (
    "adams",
    "bauer",
    "chen",
    "dietz",
    "evans",
    "fischer",
    "garcia",
    "huber",
    "ito",
    "jansen",
    "kaya",
    "lopez",
)


@frozen
class Job:
    """A job as a resource manager tells of it."""

    cluster: str
    job_id: int
    user: str
    application: str
    hosts: tuple[str, ...]
    start: int
    """Seconds since the epoch."""
    stop: int
    """When it will have ended; nobody but the simulation knows."""
    traits: Traits
    first: int
    """Its first host's place in the group; the others are the next ones."""


@define
class Schedule:
    """The jobs of one group of hosts."""

    cluster: str
    hosts: Sequence[str]
    accelerated: bool
    seed: int
    group: int
    """The number of this group, unique in the site."""
    groups: int
    """How many groups the site has."""
    _sheet: int = field(default=-1, init=False)
    _jobs: list[Job] = field(factory=list, init=False)
    """The jobs of the sheet looked at last."""

    def running(self, time: int) -> list[Job]:
        """Return the jobs that run at a time (s, from 1970 on)."""
        sheet = (time + self._phase) // _SHEET
        if sheet != self._sheet:
            self._sheet, self._jobs = sheet, list(self._plan(sheet))
        return [job for job in self._jobs if job.start <= time < job.stop]

    @property
    def _phase(self) -> int:
        """How much earlier than the first group's the sheets of this one begin (s)."""
        return self.group * 5077 % _SHEET

    def _plan(self, sheet: int) -> Iterator[Job]:
        rng = np.random.default_rng([self.seed, self.group, sheet])
        usual = ACCELERATED if self.accelerated else USUAL
        begin = sheet * _SHEET - self._phase
        pieces = _cut(rng, (0, len(self.hosts), begin, begin + _SHEET), 0)
        for number, (first, last, start, stop) in enumerate(pieces):
            gap, delay, early, user, program, *traits = rng.random(8).tolist()
            if gap < _GAP / (last - first):
                continue
            programs = [name for name in usual if last - first == 1 or name not in SINGLE]
            yield Job(
                cluster=self.cluster,
                job_id=(sheet * self.groups + self.group) * 2**_DEPTH + number,
                user=_USERS[int(user * len(_USERS))],
                application=programs[int(program * len(programs))],
                hosts=tuple(self.hosts[first:last]),
                start=start + int(delay * 2 * MINUTES),
                stop=stop - int(early * 0.15 * (stop - start)),
                traits=(traits[0], traits[1], traits[2]),
                first=first,
            )


_Piece = tuple[int, int, int, int]
"""First host, behind the last host, start, stop."""


def _cut(rng: np.random.Generator, piece: _Piece, depth: int) -> list[_Piece]:
    """Cut a piece until luck or its size says that it is small enough."""
    first, last, start, stop = piece
    share, rest, across = rng.random(3).tolist()
    if depth == _DEPTH or (rest < depth / 10 and stop - start <= _LONGEST):
        return [piece]
    if last - first > 1 and across < 0.6:
        host = first + 1 + int(share * (last - first - 1))
        halves = (first, host, start, stop), (host, last, start, stop)
    elif stop - start >= 2 * _SHORTEST:
        time = start + int((0.3 + 0.4 * share) * (stop - start))
        halves = (first, last, start, time), (first, last, time, stop)
    else:
        return [piece]
    return [part for half in halves for part in _cut(rng, half, depth + 1)]
