"""The routes that tell how the server is: live, ready, stats, metrics, and what there is to ask.

The first two and ``/metrics`` need no token: a load balancer, systemd or Prometheus has none, and none
of them names a host or a value.
"""

from typing import Any

import attrs
from quart import Response, request

from ccstore import __version__
from ccstore.memory.components import components_of
from ccstore.model import Metric
from ccstore.server import page
from ccstore.server.answers import HttpError, json_answer
from ccstore.server.auth import Permission
from ccstore.server.http import App, route
from ccstore.server.metrics import CONTENT_TYPE_LATEST, encode_metrics, encode_stats
from ccstore.server.services import Services

__all__ = ["add_routes"]

_INDEX = f"""\
ccstore {__version__}

  POST /api/write?cluster=NAME     samples in line protocol
  GET, POST /api/query             values of series, as JSON
  GET /api/stream                  a websocket: changes as they come in
  POST /api/free?to=SECONDS        free samples
  POST /api/checkpoint             write a checkpoint now
  GET /api/healthcheck             do the metrics of hosts arrive?
  POST /api/nodestate              states of nodes, from a scheduler; also /api/nodestats
  POST /api/jobs/start_job, /api/jobs/stop_job
  GET /api/jobs/used_nodes?ts=SECONDS
  GET /api/nodes, /api/nodes/{{cluster}}/{{host}}
  GET /api/jobs, /api/jobs/{{job}}   jobs, running and ended
  GET /api/debug?selector=A:B      what is in memory
  GET /api/clusters, /api/metrics, /api/components
                                   what there is to ask for
  GET, POST /api/v1/query, /api/v1/query_range, /api/v1/series, /api/v1/labels
  GET /api/v1/label/{{name}}/values, /api/v1/metadata, /api/v1/status/buildinfo
                                   a part of the API of Prometheus, for Grafana
  GET /api/stats                   how the store is, as JSON
  GET /metrics                     the same for Prometheus
  GET /api/health/live, /api/health/ready
  GET /api/openapi.json            all of it, for programs
"""


def add_routes(app: App, services: Services) -> None:
    """Add the routes to an application."""
    page.add_routes(app, _INDEX)

    @route(app, "/api/health/live", methods=["GET"], permission=None)
    async def live() -> Response:
        return json_answer({"status": "live"})

    @route(app, "/api/health/ready", methods=["GET"], permission=None)
    async def ready() -> Response:
        problems = services.problems()
        status = "not ready" if problems else "ready"
        return json_answer({"status": status, "problems": problems}, 503 if problems else 200)

    @route(app, "/api/clusters", methods=["GET"], permission=Permission.READ)
    async def clusters() -> Response:
        store = services.store
        names = store.index.visible(store.index.root)
        return json_answer({"clusters": [{"name": name, "hosts": len(store.hosts(name))} for name in names]})

    @route(app, "/api/metrics", methods=["GET"], permission=Permission.READ)
    async def stored_metrics() -> Response:
        metrics = services.config.metrics_of(request.args.get("cluster", ""))
        return json_answer({"metrics": [_describe(metric) for metric in metrics.values()]})

    @route(app, "/api/components", methods=["GET"], permission=Permission.READ)
    async def components() -> Response:
        services.check_recovered()
        cluster, host = request.args.get("cluster", ""), request.args.get("host", "")
        found = [attrs.asdict(component) for component in components_of(services.store, cluster, host)]
        if not found:
            raise HttpError(404, f"host: {cluster!r} has no {host!r} with samples")
        return json_answer({"cluster": cluster, "host": host, "components": found})

    @route(app, "/api/stats", methods=["GET"], permission=Permission.READ)
    async def stats() -> Response:
        return json_answer(encode_stats(services))

    @route(app, "/metrics", methods=["GET"], permission=None)
    async def metrics() -> Response:
        return Response(encode_metrics(services), content_type=CONTENT_TYPE_LATEST)


def _describe(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "unit": metric.unit,
        "frequency": metric.frequency,
        "aggregation": metric.aggregation.value or None,
    }
