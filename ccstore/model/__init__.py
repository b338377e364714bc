"""The nouns that every room speaks of, as frozen values.

This package only names things. It computes nothing and knows neither bytes, nor who owns an array, nor
tasks, so that each room can be read and tested with nothing but these words. `samples` has the words of
metrics, `jobs` those of jobs, `nodes` those of nodes.
"""

from ccstore.model.jobs import (
    Job,
    JobFilter,
    JobRefusal,
    JobState,
    JobStop,
    RefusedJob,
    Resource,
    Tag,
)
from ccstore.model.nodes import (
    NodeFilter,
    NodeRecord,
    NodeReport,
    NodesStored,
    NodeState,
    NodeStatus,
    ReportedNode,
    SkippedNode,
)
from ccstore.model.samples import (
    ANY,
    Aggregation,
    Any_,
    Batch,
    Health,
    HealthRequest,
    Metric,
    Names,
    NodeHealth,
    Outcome,
    Query,
    QueryRequest,
    Runs,
    Samples,
    Selector,
    SeriesKey,
    Status,
    Window,
)

__all__ = [
    "ANY",
    "Aggregation",
    "Any_",
    "Batch",
    "Health",
    "HealthRequest",
    "Job",
    "JobFilter",
    "JobRefusal",
    "JobState",
    "JobStop",
    "Metric",
    "Names",
    "NodeFilter",
    "NodeHealth",
    "NodeRecord",
    "NodeReport",
    "NodeState",
    "NodeStatus",
    "NodesStored",
    "Outcome",
    "Query",
    "QueryRequest",
    "RefusedJob",
    "ReportedNode",
    "Resource",
    "Runs",
    "Samples",
    "Selector",
    "SeriesKey",
    "SkippedNode",
    "Status",
    "Tag",
    "Window",
]
