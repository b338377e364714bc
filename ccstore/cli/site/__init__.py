"""A simulated site: hosts with real topologies, jobs that come and go, and the lines they send.

This package owns what a site looks like and does at any time. It sends nothing, waits for nothing,
reads no clock and opens no file. Invariant: everything follows from the arguments of
`make_site` and the time asked about, so two processes that agree on these send the same bytes, and
the past can be made up after the fact.

From the ground up: `hardware` has the parts of a node, `applications` what a job wants of them, `jobs`
who runs where, `quantities` and `metrics` what a host measures meanwhile, `lines` how it says so.
"""

from ccstore.cli.site.hardware import NODE_TYPES, NodeType
from ccstore.cli.site.jobs import Job
from ccstore.cli.site.metrics import Detail
from ccstore.cli.site.site import MIXED, Message, Site, make_site

__all__ = ["MIXED", "NODE_TYPES", "Detail", "Job", "Message", "NodeType", "Site", "make_site"]
