"""What the tests of the database share: a job, a node, and a file as the reference store leaves it."""

import sqlite3
from pathlib import Path
from typing import Any

from attrs import evolve

from ccstore.disk.registry.database import Database, open_database
from ccstore.model import Health, Job, NodeHealth, NodeRecord, NodeState, Resource

NOW = 1_700_000_000

GOOD = NodeHealth(Health.FULL, known=True)
JOB = Job(
    cluster="c", subcluster="main", job_id=1, start_time=NOW, user="u", project="p", num_nodes=1,
    walltime=3600, resources=(Resource("h1"),),
)  # fmt: skip


def job(job_id: int = 1, start_time: int = NOW, **changes: Any) -> Job:
    """Return a job that begins."""
    return evolve(JOB, job_id=job_id, start_time=start_time, **changes)


def node(host: str = "h1", state: NodeState = NodeState.IDLE, **changes: Any) -> NodeRecord:
    """Return a record in full health."""
    return evolve(NodeRecord(host, "main", state, GOOD), **changes)


def open_new(directory: Path) -> Database:
    """Open a database that is not there yet."""
    return open_database(directory / "job.db", busy_timeout=0.0)


def rows(path: Path, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Read as another program would."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(text, parameters).fetchall()
    finally:
        connection.close()


def change(path: Path, text: str) -> None:
    """Write as another program would."""
    connection = sqlite3.connect(path)
    try:
        connection.executescript(text)
    finally:
        connection.close()


_STATES = (
    "'boot_fail','cancelled','completed','deadline','failed','node_fail','out_of_memory','pending',"
    "'preempted','running','suspended','timeout'"
)


def _jobs(table: str, smt: str) -> str:
    return f"""CREATE TABLE {table} (id INTEGER PRIMARY KEY, job_id BIGINT NOT NULL, cluster TEXT NOT NULL,
        subcluster TEXT NOT NULL, submit_time BIGINT NOT NULL DEFAULT 0, start_time BIGINT NOT NULL DEFAULT 0,
        hpc_user TEXT NOT NULL, project TEXT NOT NULL, cluster_partition TEXT, array_job_id BIGINT,
        duration INT NOT NULL, walltime INT NOT NULL, job_state TEXT NOT NULL
        CHECK (job_state IN ({_STATES})),
        meta_data TEXT, resources TEXT NOT NULL, num_nodes INT NOT NULL, num_hwthreads INT, num_acc INT,
        smt {smt}, shared TEXT NOT NULL CHECK (shared IN ('none','single_user','multi_user')),
        monitoring_status TINYINT NOT NULL DEFAULT 1 CHECK (monitoring_status IN (0,1,2,3)),
        energy REAL NOT NULL DEFAULT 0.0, energy_footprint TEXT, footprint TEXT,
        UNIQUE (job_id, cluster, start_time));"""


REFERENCE = f"""
PRAGMA journal_mode = WAL;
{_jobs("job", "INT NOT NULL DEFAULT 1")}
{_jobs("job_cache", "TINYINT NOT NULL DEFAULT 1 CHECK (smt IN (0,1))")}
CREATE INDEX jobs_jobstate_user ON job (job_state, hpc_user);
CREATE TABLE tag (id INTEGER PRIMARY KEY, tag_type VARCHAR(255) NOT NULL, tag_name VARCHAR(255) NOT NULL,
    tag_scope TEXT DEFAULT 'global', CONSTRAINT be_unique UNIQUE (tag_type, tag_name));
CREATE TABLE jobtag (job_id INTEGER, tag_id INTEGER, PRIMARY KEY (job_id, tag_id),
    FOREIGN KEY (job_id) REFERENCES job (id) ON DELETE CASCADE,
    FOREIGN KEY (tag_id) REFERENCES tag (id) ON DELETE CASCADE);
CREATE TABLE node (id INTEGER PRIMARY KEY, hostname VARCHAR(255) NOT NULL, cluster VARCHAR(255) NOT NULL,
    subcluster VARCHAR(255) NOT NULL, meta_data TEXT, UNIQUE (hostname, cluster));
CREATE TABLE node_state (id INTEGER PRIMARY KEY, time_stamp INTEGER NOT NULL,
    jobs_running INTEGER DEFAULT 0 NOT NULL, cpus_allocated INTEGER DEFAULT 0 NOT NULL,
    memory_allocated INTEGER DEFAULT 0 NOT NULL, gpus_allocated INTEGER DEFAULT 0 NOT NULL,
    node_state VARCHAR(255) NOT NULL
        CHECK (node_state IN ('allocated','reserved','idle','mixed','down','unknown')),
    health_state VARCHAR(255) NOT NULL CHECK (health_state IN ('full','partial','failed')),
    health_metrics TEXT, node_id INTEGER, FOREIGN KEY (node_id) REFERENCES node (id));
CREATE INDEX nodestates_timestamp ON node_state (time_stamp);
CREATE INDEX nodestates_state_timestamp ON node_state (node_state, time_stamp);
CREATE INDEX nodestates_health_timestamp ON node_state (health_state, time_stamp);
CREATE INDEX nodestates_nodeid_state ON node_state (node_id, node_state);
CREATE INDEX nodestates_nodeid_health ON node_state (node_id, health_state);
CREATE INDEX nodestates_nodeid_timestamp ON node_state (node_id, time_stamp DESC);
CREATE TABLE hpc_user (username VARCHAR(255) PRIMARY KEY NOT NULL);
CREATE TABLE schema_migrations (version uint64, dirty bool);
CREATE UNIQUE INDEX version_unique ON schema_migrations (version);
INSERT INTO schema_migrations VALUES (11, 0);
INSERT INTO hpc_user VALUES ('u');
INSERT INTO node VALUES (7, 'h1', 'c', 'main', '{{"rack":"1"}}');
INSERT INTO node_state (time_stamp, node_state, health_state, health_metrics, node_id)
    VALUES ({NOW - 60}, 'idle', 'full', NULL, 7);
INSERT INTO job (id, job_id, cluster, subcluster, start_time, hpc_user, project, duration, walltime,
        job_state, meta_data, resources, num_nodes, shared, footprint)
    VALUES (40, 1, 'c', 'main', {NOW - 500}, 'u', 'p', 100, 3600, 'completed', NULL, '[{{"hostname":"h1"}}]',
        1, 'none', '{{"cpu_load_avg":1.5}}');
INSERT INTO job_cache (id, job_id, cluster, subcluster, start_time, hpc_user, project, duration, walltime,
        job_state, resources, num_nodes, shared)
    VALUES (3, 2, 'c', 'main', {NOW - 400}, 'u', 'p', 0, 3600, 'running', '[{{"hostname":"h1"}}]', 1, 'none');
INSERT INTO tag VALUES (5, 'type', 'name', 'global');
INSERT INTO jobtag VALUES (40, 5);
"""
"""Version 11 with some rows, columns in another order than ours, and a table that we know nothing of."""
