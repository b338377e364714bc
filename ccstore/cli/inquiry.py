"""One question to one server: asked as often as wanted, every answer looked through for what is missing.

Owns the round trips of ``query`` and the words for what a good answer does not hold: hosts without
samples, series that the server could not read. It shows nothing. Invariant: a series that was asked for
by name is found either in a sheet or in a problem, so that nothing is missing silently.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import orjson
from attrs import frozen

from ccstore.cli.catalogue import Catalogue, join_names
from ccstore.cli.client import Client
from ccstore.cli.series import Place, Question, Series, decode_answer, encode_question
from ccstore.cli.times import Span
from ccstore.cli.views import Sheet
from ccstore.errors import QueryError

__all__ = ["Findings", "Inquiry"]


@frozen
class Findings:
    """What came back."""

    body: bytes
    """The server's answer as it is."""
    sheets: Sequence[Sheet]
    """One for each metric of which there is a value."""
    problems: Sequence[str]
    """What is missing, each as one line."""


@frozen
class Inquiry:
    """A question, whom to ask, and about which time."""

    client: Client
    catalogue: Catalogue
    question: Question
    span: Span

    def look(self, now: int) -> Findings:
        """Ask, and sort the answer out. Raises QueryError and ServerError."""
        start, stop = self.span.at(now)
        question = self.question
        hosts: Sequence[str] = question.hosts
        if question.needs_hosts:
            hosts = self.catalogue.hosts(question.cluster)
            if not hosts:
                raise QueryError(self.catalogue.explain_cluster(question.cluster))
        request, places = encode_question(question, hosts, start, stop)
        body = self.client.request("POST", "/api/query", content=orjson.dumps(request))
        series = decode_answer(body, places, thinned=question.resolution > 0)
        sheets = [self._sheet(metric, series, start, stop, now) for metric in question.metrics]
        problems = [*_errors(series), *self._missing(series), *_silent(sheets)]
        return Findings(body, [sheet for sheet in sheets if sheet.has_values], problems)

    def _sheet(self, metric: str, series: Sequence[Series], start: int, stop: int, now: int) -> Sheet:
        found = [one for one in series if one.place.metric == metric and one.is_stored and not one.error]
        unit = self.catalogue.unit(metric)
        return Sheet(metric, unit, self.question.cluster, start, stop, now, found)

    def _missing(self, series: Sequence[Series]) -> Iterator[str]:
        """Report what was asked for and is not stored.

        Of all hosts of a cluster some may well be without a metric: that is reported only if all are.
        """
        question = self.question
        if not series:
            yield self.catalogue.explain_cluster(question.cluster)
        elif not question.hosts:
            for metric, of_metric in _group(series, lambda place: place.metric).items():
                if not any(one.is_stored for one in of_metric):
                    where = f"no host of cluster {question.cluster!r} has {metric!r}"
                    yield f"query: {where}{_components(of_metric)}"
        else:
            yield from self._missing_hosts(series)

    def _missing_hosts(self, series: Sequence[Series]) -> Iterator[str]:
        cluster = self.question.cluster
        hosts: Sequence[str] | None = None
        for host, of_host in _group(series, lambda place: place.host).items():
            absent = [one for one in of_host if not one.is_stored]
            if len(absent) == len(of_host):
                hosts = self.catalogue.hosts(cluster) if hosts is None else hosts
                if host not in hosts:
                    yield self.catalogue.explain_host(cluster, host, hosts)
                    continue
            for metric, places in _group(absent, lambda place: place.metric).items():
                yield f"query: host {host!r} has no {metric!r}{_components(places)}"


def _errors(series: Sequence[Series]) -> Iterator[str]:
    """Report what the server says was wrong with series, those with the same words together."""
    told = [one for one in series if one.error]
    for metric, of_metric in _group(told, lambda place: place.metric).items():
        for error in dict.fromkeys(one.error for one in of_metric):
            hosts = dict.fromkeys(one.place.host for one in of_metric if one.error == error)
            yield f"query: {metric!r} of {join_names(hosts)}: {error}"


def _silent(sheets: Sequence[Sheet]) -> Iterator[str]:
    """Report metrics that are stored, but not in the range that was asked for."""
    for sheet in sheets:
        if sheet.series and not sheet.has_values:
            yield f"query: no samples of {sheet.metric!r} from {sheet.range}"


def _group(series: Sequence[Series], key: Callable[[Place], str]) -> Mapping[str, Sequence[Series]]:
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(key(one.place), []).append(one)
    return groups


def _components(series: Sequence[Series]) -> str:
    """Return the components of series for the end of a sentence; empty if they are of hosts as a whole."""
    names = dict.fromkeys(one.place.component for one in series if one.place.component)
    return f" of {join_names(names)}" if names else ""
