"""From a configuration file to a `Config`, or to every mistake in it.

This module owns the file handling: the default path, the JSON text, sections that live in files
of their own, the environment, and the order in which the checks run. It writes nothing. Invariant:
either the returned `Config` can be used as it is, or ConfigError lists all that is wrong with it.

Paths inside the file, also those of ``<name>-file`` keys, are relative to the working directory
of the process, as for the reference store: the same service unit must find the same files.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from ccstore.config.clusterfile import read_clusters
from ccstore.config.files import read_json
from ccstore.config.keys import ED25519_KEY, METRIC_NAME, key_of
from ccstore.config.reader import Reader, closest
from ccstore.config.rules import find_contradictions, find_notes, find_warnings
from ccstore.config.sections import (
    ArchiveConfig,
    Config,
    CronConfig,
    MainConfig,
    MetricEntry,
    MetricStoreConfig,
    NatsConfig,
)
from ccstore.errors import ConfigError
from ccstore.model import Aggregation, Metric

__all__ = ["DEFAULT_PATH", "IGNORED_MAIN_KEYS", "load_config"]

S = TypeVar("S", bound=attrs.AttrsInstance)

DEFAULT_PATH = "./config.json"
SECTIONS = ("main", "metrics", "metric-store", "nats", "archive", "cron")
IGNORED_MAIN_KEYS = frozenset(
    {
        "embed-static-files",
        "emission-constant",
        "enable-job-taggers",
        "machine-state-dir",
        "redirect-http-to",
        "session-max-age",
        "short-running-jobs-duration",
        "static-files",
        "systemd-unit",
        "validate",
    }
)
"""Keys for parts of the reference's backend program that ccstore does not have."""


def load_config(path: str | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration at `path`, or at `DEFAULT_PATH` if there is a file.

    Without `path` and without that file, everything has its default, which is a server for this
    machine alone. Of `environ`, JWT_PUBLIC_KEY stands in for an empty ``main.jwt-public-key``.
    Raises ConfigError with every mistake, each as ``path.to.key: what was wrong (got, wanted)``.
    """
    reader = Reader()
    if path is None and Path(DEFAULT_PATH).exists():
        path = DEFAULT_PATH
    if path is None:
        config = Config(warnings=(f"{DEFAULT_PATH}: no such file, so everything has its default",))
    else:
        document = read_json(path)
        if not isinstance(document, dict):
            raise ConfigError(f"{path}: not an object (wanted an object with main, metrics and metric-store)")
        reader.complain_about_repeated(document)
        config = _read_sections(reader, _with_included_files(reader, document))
        config = attrs.evolve(config, path=path)
    config = _with_environment(reader, config, environ)
    config = _with_clusters(reader, config)
    contradictions = find_contradictions(config, reader.given)
    reader.problems += [str(c) for c in contradictions if not any(map(reader.is_broken, c.keys))]
    if reader.problems:
        raise ConfigError(reader.problems)
    notes = find_notes(config, reader.given, reader.foreign) if config.path else ()
    return attrs.evolve(config, warnings=(*config.warnings, *find_warnings(config)), notes=tuple(notes))


def _with_included_files(reader: Reader, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the content of each file that a ``<name>-file`` key names."""
    sections = dict(document)
    for name in SECTIONS:
        included = document.get(f"{name}-file")
        if included is None:
            continue
        reader.given.add(f"{name}-file")
        if name in document:
            reader.complain(f"{name}-file", f"stands beside {name} (got both, wanted one)")
        elif not isinstance(included, str):
            reader.complain(f"{name}-file", f"not a string (got {json.dumps(included)}, wanted a path)")
            reader.broken.add(name)
        else:
            try:
                sections[name] = read_json(included)
                reader.complain_about_repeated(sections[name], name)
            except ConfigError as error:
                reader.problems += [f"{name}-file: {problem}" for problem in error.problems]
                reader.broken.add(name)
    return sections


def _read_sections(reader: Reader, document: Mapping[str, Any]) -> Config:
    unknown = [name for name in document if name.removesuffix("-file") not in SECTIONS]
    misspelt = {meant: name for name in unknown if (meant := closest(name, SECTIONS))}
    for name in ("main", "metric-store"):
        if document.get(name) is None and not reader.is_broken(name):
            found = f'got "{misspelt[name]}", ' if name in misspelt else ""
            reader.complain(name, f"missing ({found}wanted an object)")
    warnings = [f'{name}: unknown section, ignored (did you mean "{m}"?)' for m, name in misspelt.items()]
    present = {name: document[name] for name in SECTIONS if document.get(name) is not None}
    reader.given.update(present)
    config = Config()
    if "main" in present:
        main = reader.section(MainConfig, present["main"], "main", ignored=IGNORED_MAIN_KEYS)
        config = attrs.evolve(config, main=main)
    if "metrics" in present:
        config = attrs.evolve(config, metrics=_read_metrics(reader, present["metrics"], warnings))
    if "metric-store" in present:
        store = reader.section(MetricStoreConfig, present["metric-store"], "metric-store")
        config = attrs.evolve(config, metric_store=store)
    if "nats" in present:
        config = attrs.evolve(config, nats=reader.section(NatsConfig, present["nats"], "nats"))
    if "archive" in present:
        archive = _read_shared(reader, ArchiveConfig, present["archive"], "archive", warnings)
        config = attrs.evolve(config, archive=archive)
    if "cron" in present:
        config = attrs.evolve(
            config, cron=_read_shared(reader, CronConfig, present["cron"], "cron", warnings)
        )
    return attrs.evolve(config, warnings=tuple(warnings))


def _read_shared(reader: Reader, cls: type[S], raw: Any, name: str, warnings: list[str]) -> S:
    """Read a section of the backend program: what it has beyond our keys is not ours to judge."""
    if isinstance(raw, dict):
        known = [key_of(field).name for field in attrs.fields(cls)]
        warnings += [f"{name}.{other}: unknown key, ignored" for other in raw if other not in known]
    return reader.section(cls, raw, name, shared=True)


def _read_metrics(reader: Reader, raw: Any, warnings: list[str]) -> Mapping[str, Metric]:
    if not isinstance(raw, dict) or not raw:
        reader.complain("metrics", "no metric (wanted an object, each key the name of a metric)")
        return {}
    metrics = {}
    for name, value in raw.items():
        try:
            METRIC_NAME.read(name)
        except ValueError as error:
            reader.complain(f"metrics.{name[:20]!a}", f"{error} (wanted {METRIC_NAME.wanted})")
            continue
        entry = reader.section(MetricEntry, value, f"metrics.{name}")
        try:
            aggregation = Aggregation(entry.aggregation)
        except ValueError:
            aggregation = Aggregation.NONE
            warnings.append(
                f"metrics.{name}.aggregation: unknown, so nothing is aggregated "
                f'(got "{entry.aggregation}", wanted "sum", "avg" or null)'
            )
        metrics[name] = Metric(name, entry.frequency, aggregation, entry.unit)
    return metrics


def _with_clusters(reader: Reader, config: Config) -> Config:
    """Return the configuration with what the cluster files say, and the metrics from there if need be."""
    found = read_clusters(config.archive.path)
    reader.problems += found.problems
    clusters, warnings = found.clusters, [*config.warnings, *found.warnings]
    if "archive.path" in reader.given and not Path(config.archive.path).exists():
        warnings.append(f"archive.path: no such directory, so no cluster is known ({config.archive.path})")
    if clusters and not ("metrics" in reader.given or reader.is_broken("metrics")):
        metrics, own = clusters.metrics(), clusters.own_metrics()
        config = attrs.evolve(config, metrics=metrics, own_metrics=own, metrics_derived=True)
    elif config.path and "metrics" not in reader.given:
        warnings.append(f"metrics: missing, so the built-in table of {len(config.metrics)} metrics is used")
    return attrs.evolve(config, clusters=clusters, warnings=tuple(warnings))


def _with_environment(reader: Reader, config: Config, environ: Mapping[str, str]) -> Config:
    text = environ.get("JWT_PUBLIC_KEY", "")
    if config.main.jwt_public_key or reader.is_broken("main.jwt-public-key"):
        return config
    try:
        key = ED25519_KEY.read(text)
    except ValueError as error:
        reader.complain("JWT_PUBLIC_KEY", f"{error} (in the environment, wanted {ED25519_KEY.wanted})")
        reader.broken.add("main.jwt-public-key")
        return config
    return attrs.evolve(config, main=attrs.evolve(config.main, jwt_public_key=key))
