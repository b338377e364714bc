"""Every SQL text of ccstore: the schema of version 11, and what is done with its tables.

Owns the names of tables, columns and indexes; `database`, `nodes` and `jobs` only run what is written
here. Invariant: no value is ever put into a text. Values travel as parameters; a list travels as one
parameter that holds a JSON array, so the number of different texts stays small.

The schema is shared with the reference store, so nothing here may be added to or taken away from a table.
The indexes of `job` are those of the reference's twenty that the statements below use, with its names,
because its next migration looks for them by name.
"""

from collections.abc import Iterable, Mapping

VERSION = 11
"""Of the schema."""

JOB_COLUMNS = (
    "job_id", "cluster", "subcluster", "hpc_user", "project", "cluster_partition", "submit_time",
    "start_time", "array_job_id", "duration", "walltime", "job_state", "meta_data", "resources", "num_nodes",
    "num_hwthreads", "num_acc", "smt", "shared", "monitoring_status", "energy",
    "energy_footprint", "footprint",
)  # fmt: skip
"""The columns that `job` and `job_cache` have in common, but for the number of the row."""

_JOB_TABLE = """
CREATE TABLE {table} (
    id INTEGER PRIMARY KEY,
    job_id BIGINT NOT NULL,
    cluster {text} NOT NULL,
    subcluster {text} NOT NULL,
    submit_time BIGINT NOT NULL DEFAULT 0,
    start_time BIGINT NOT NULL DEFAULT 0,
    hpc_user {text} NOT NULL,
    project {text} NOT NULL,
    cluster_partition {text},
    array_job_id BIGINT,
    duration INT NOT NULL,
    walltime INT NOT NULL,
    job_state {text} NOT NULL CHECK (job_state IN
        ('boot_fail', 'cancelled', 'completed', 'deadline', 'failed', 'node_fail', 'out_of_memory', 'pending',
         'preempted', 'running', 'suspended', 'timeout')),
    meta_data TEXT,
    resources TEXT NOT NULL,
    num_nodes INT NOT NULL,
    num_hwthreads INT,
    num_acc INT,
    smt {smt},
    shared TEXT NOT NULL CHECK (shared IN ('none', 'single_user', 'multi_user')),
    monitoring_status TINYINT NOT NULL DEFAULT 1 CHECK (monitoring_status IN (0, 1, 2, 3)),
    energy REAL NOT NULL DEFAULT 0.0,
    energy_footprint TEXT DEFAULT NULL,
    footprint TEXT DEFAULT NULL,
    UNIQUE (job_id, cluster, start_time)
)"""

SCHEMA = (
    _JOB_TABLE.format(table="job", text="TEXT", smt="INT NOT NULL DEFAULT 1"),
    _JOB_TABLE.format(
        table="job_cache", text="VARCHAR(255)", smt="TINYINT NOT NULL DEFAULT 1 CHECK (smt IN (0, 1))"
    ),
    "CREATE INDEX jobs_starttime ON job (start_time)",
    "CREATE INDEX jobs_cluster_starttime_duration ON job (cluster, start_time, duration)",
    "CREATE INDEX jobs_cluster_jobstate_starttime_duration ON job (cluster, job_state, start_time, duration)",
    "CREATE INDEX jobs_jobstate_duration_starttime ON job (job_state, duration, start_time)",
    "CREATE INDEX jobs_user_starttime_duration ON job (hpc_user, start_time, duration)",
    "CREATE INDEX jobs_project_starttime_duration ON job (project, start_time, duration)",
    """CREATE TABLE tag (
        id INTEGER PRIMARY KEY,
        tag_type VARCHAR(255) NOT NULL,
        tag_name VARCHAR(255) NOT NULL,
        tag_scope TEXT NOT NULL DEFAULT 'global',
        UNIQUE (tag_type, tag_name)
    )""",
    """CREATE TABLE jobtag (
        job_id INTEGER,
        tag_id INTEGER,
        PRIMARY KEY (job_id, tag_id),
        FOREIGN KEY (job_id) REFERENCES job (id) ON DELETE CASCADE,
        FOREIGN KEY (tag_id) REFERENCES tag (id) ON DELETE CASCADE
    )""",
    "CREATE INDEX tags_jobid ON jobtag (job_id)",
    "CREATE INDEX tags_tagid ON jobtag (tag_id)",
    """CREATE TABLE node (
        id INTEGER PRIMARY KEY,
        hostname VARCHAR(255) NOT NULL,
        cluster VARCHAR(255) NOT NULL,
        subcluster VARCHAR(255) NOT NULL,
        meta_data TEXT,
        UNIQUE (hostname, cluster)
    )""",
    """CREATE TABLE node_state (
        id INTEGER PRIMARY KEY,
        time_stamp INTEGER NOT NULL,
        jobs_running INTEGER NOT NULL DEFAULT 0,
        cpus_allocated INTEGER NOT NULL DEFAULT 0,
        memory_allocated INTEGER NOT NULL DEFAULT 0,
        gpus_allocated INTEGER NOT NULL DEFAULT 0,
        node_state VARCHAR(255) NOT NULL
            CHECK (node_state IN ('allocated', 'reserved', 'idle', 'mixed', 'down', 'unknown')),
        health_state VARCHAR(255) NOT NULL CHECK (health_state IN ('full', 'partial', 'failed')),
        health_metrics TEXT,
        node_id INTEGER,
        FOREIGN KEY (node_id) REFERENCES node (id)
    )""",
    "CREATE INDEX nodes_cluster ON node (cluster)",
    "CREATE INDEX nodes_cluster_subcluster ON node (cluster, subcluster)",
    "CREATE INDEX nodestates_timestamp ON node_state (time_stamp)",
    "CREATE INDEX nodestates_state_timestamp ON node_state (node_state, time_stamp)",
    "CREATE INDEX nodestates_health_timestamp ON node_state (health_state, time_stamp)",
    "CREATE INDEX nodestates_nodeid_state ON node_state (node_id, node_state)",
    "CREATE INDEX nodestates_nodeid_health ON node_state (node_id, health_state)",
    "CREATE INDEX nodestates_nodeid_timestamp ON node_state (node_id, time_stamp DESC)",
    "CREATE TABLE schema_migrations (version uint64, dirty bool)",
    "CREATE UNIQUE INDEX version_unique ON schema_migrations (version)",
    f"INSERT INTO schema_migrations (version, dirty) VALUES ({VERSION}, 0)",
)
"""What makes an empty file a database of this version."""

COLUMNS = {
    "job": {"id", *JOB_COLUMNS},
    "job_cache": {"id", *JOB_COLUMNS},
    "tag": {"id", "tag_type", "tag_name", "tag_scope"},
    "jobtag": {"job_id", "tag_id"},
    "node": {"id", "hostname", "cluster", "subcluster", "meta_data"},
    "node_state": {
        "id", "time_stamp", "jobs_running", "cpus_allocated", "memory_allocated", "gpus_allocated",
        "node_state", "health_state", "health_metrics", "node_id",
    },
}  # fmt: skip
"""What the statements below need of each table."""

SETTINGS = (
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    # A report of many nodes writes a page of each index for each node, and mostly the same pages as the one
    # before it: so they are copied into the file once for several reports (64 MiB of log, not 4).
    "PRAGMA wal_autocheckpoint = 16384",
)
"""Of every connection."""
WRITE_AHEAD = "PRAGMA journal_mode = WAL"
READ_ONLY = "PRAGMA query_only = ON"
CACHE_SIZE = "PRAGMA cache_size = -{kib:d}"
SOFT_HEAP_LIMIT = "PRAGMA soft_heap_limit = {bytes:d}"

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
MIGRATIONS = "SELECT version, dirty FROM schema_migrations"
COLUMNS_OF = "SELECT name FROM pragma_table_info(?)"

BEGIN_WRITE = "BEGIN IMMEDIATE"
BEGIN_READ = "BEGIN"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
SAVEPOINT = "SAVEPOINT step"
RELEASE = "RELEASE step"
ROLLBACK_TO = "ROLLBACK TO step"

# --- nodes

NODES_OF_CLUSTER = "SELECT hostname, id, subcluster FROM node WHERE cluster = ?"
INSERT_NODE = "INSERT INTO node (hostname, cluster, subcluster) VALUES (?, ?, ?)"
MOVE_NODE = "UPDATE node SET subcluster = ? WHERE id = ?"
INSERT_STATE = """INSERT INTO node_state
    (time_stamp, node_state, health_state, health_metrics, cpus_allocated, memory_allocated, gpus_allocated,
     jobs_running, node_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_RECORD = """n.cluster, n.hostname, n.subcluster, s.time_stamp, s.node_state, s.health_state,
    s.health_metrics, s.cpus_allocated, s.memory_allocated, s.gpus_allocated, s.jobs_running"""

# Rows of a node are looked at in the order in which they were stored, because the indexes of (node, state)
# and (node, health) end in the number of the row: so both steps are look-ups, however long a node was idle.
# The inner one finds the last row of every other state, the outer one the first row after them all.
_SINCE = """coalesce((
    SELECT f.time_stamp FROM node_state f
    WHERE f.node_id = n.id AND f.{column} = s.{column} AND f.id > coalesce((
        SELECT max((SELECT max(o.id) FROM node_state o WHERE o.node_id = n.id AND o.{column} = v.column1))
        FROM (VALUES {values}) v WHERE v.column1 <> s.{column}), 0)
    ORDER BY f.id LIMIT 1), s.time_stamp)"""

CURRENT_STATES = f"""SELECT {_RECORD},
    {
    _SINCE.format(
        column="node_state",
        values="('allocated'), ('reserved'), ('idle'), ('mixed'), ('down'), ('unknown')",
    )
},
    {_SINCE.format(column="health_state", values="('full'), ('partial'), ('failed')")}
    FROM node n JOIN node_state s ON s.id = (
        SELECT l.id FROM node_state l WHERE l.node_id = n.id ORDER BY l.time_stamp DESC, l.id DESC LIMIT 1)
    WHERE {{conditions}}
    ORDER BY n.cluster, n.hostname"""

NODE_ID = "SELECT id FROM node WHERE hostname = ? AND cluster = ?"
HISTORY = f"""SELECT {_RECORD}
    FROM node_state s JOIN node n ON n.id = s.node_id
    WHERE s.node_id = ? AND s.time_stamp >= ? AND s.time_stamp < ?
    ORDER BY s.time_stamp DESC, s.id DESC LIMIT ?"""

# Node by node: the indexes are ordered by node, so rows of one node are on pages that are written once.
EXPIRED_STATES = """SELECT s.id FROM node n CROSS JOIN node_state s
    WHERE s.node_id = n.id
        AND s.time_stamp < min(?, (SELECT max(m.time_stamp) FROM node_state m WHERE m.node_id = n.id))
    ORDER BY n.id LIMIT ?"""
DELETE_STATE = "DELETE FROM node_state WHERE id = ?"

# --- jobs

MAIN, CACHE = "job", "job_cache"

_COLUMNS = ", ".join(JOB_COLUMNS)


def _both(text: str) -> Mapping[str, str]:
    """Return the text for each of the two tables of jobs."""
    return {table: text.replace("{table}", table) for table in (MAIN, CACHE)}


INSERT_JOB = _both(f"""INSERT INTO {{table}} ({_COLUMNS}) VALUES ({", ".join("?" * len(JOB_COLUMNS))})""")
DUPLICATE_OF = _both(
    """SELECT id, start_time FROM {table}
    WHERE job_id = ? AND cluster = ? AND start_time > ? AND start_time < ?
    ORDER BY start_time DESC LIMIT 1"""
)
NEWEST_STORED = _both(
    f"""SELECT id, {_COLUMNS} FROM {{table}}
    WHERE job_id = :job_id AND (:cluster = '' OR cluster = :cluster)
        AND (:start_time = 0 OR start_time = :start_time)
    ORDER BY id DESC LIMIT 1"""
)
NEWEST_STARTED = _both(
    f"""SELECT id, {_COLUMNS} FROM {{table}}
    WHERE job_id = :job_id AND (:cluster = '' OR cluster = :cluster)
        AND (:start_time = 0 OR start_time = :start_time)
    ORDER BY start_time DESC, id DESC LIMIT 1"""
)
JOBS = _both(
    f"""SELECT id, {_COLUMNS} FROM {{table}} WHERE {{conditions}} ORDER BY start_time DESC, id DESC LIMIT ?"""
)
USED_RESOURCES = _both(
    """SELECT job_id, cluster, resources FROM {table} WHERE job_state = 'running' AND start_time < ?"""
)
OVERDUE = _both(
    f"""SELECT id, {_COLUMNS} FROM {{table}}
    WHERE job_state = 'running' AND walltime > 0 AND start_time + walltime + :grace < :now
    ORDER BY id"""
)
REFRESH_DURATIONS = _both(
    """UPDATE {table} SET duration = max(0, min(:now - start_time, 2147483647))
    WHERE job_state = 'running'"""
)

COMMIT_CACHE = f"""INSERT INTO job ({_COLUMNS}) SELECT {_COLUMNS} FROM job_cache WHERE true ORDER BY id
    ON CONFLICT (job_id, cluster, start_time) DO NOTHING"""
EMPTY_CACHE = "DELETE FROM job_cache"
MOVE_JOB = f"""INSERT INTO job ({_COLUMNS}) SELECT {_COLUMNS} FROM job_cache WHERE id = ?
    ON CONFLICT (job_id, cluster, start_time) DO NOTHING"""
FORGET_CACHED = "DELETE FROM job_cache WHERE id = ?"
JOB_OF_KEY = "SELECT id FROM job WHERE job_id = ? AND cluster = ? AND start_time = ?"
END_JOB = "UPDATE job SET job_state = ?, duration = ?, monitoring_status = ? WHERE id = ?"

INSERT_TAG = """INSERT INTO tag (tag_type, tag_name, tag_scope) VALUES (?, ?, ?)
    ON CONFLICT (tag_type, tag_name) DO NOTHING"""
TAG_ID = "SELECT id FROM tag WHERE tag_type = ? AND tag_name = ?"
INSERT_JOB_TAG = "INSERT INTO jobtag (job_id, tag_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
TAGS_OF_JOBS = """SELECT jt.job_id, t.tag_type, t.tag_name, t.tag_scope
    FROM jobtag jt JOIN tag t ON t.id = jt.tag_id
    WHERE jt.job_id IN (SELECT value FROM json_each(?)) ORDER BY jt.job_id, t.id"""

ANY = "IN (SELECT value FROM json_each(?))"
HAS_HOST = """CASE WHEN json_valid(resources) THEN EXISTS (
    SELECT 1 FROM json_each(resources) r
    WHERE r.type = 'object' AND json_extract(r.value, '$.hostname') IN (SELECT value FROM json_each(?))
    ) ELSE 0 END"""
"""A condition; CASE, and not AND, keeps the two in this order, and json_each takes nothing but JSON."""


def where(conditions: Iterable[str]) -> str:
    """Join conditions that must all hold; without any, everything does."""
    return " AND ".join(conditions) or "true"
