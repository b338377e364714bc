"""A client of a running store, for programs on Trio: write, query, and streams that come back by themselves.

>>> async with Client("http://127.0.0.1:8082") as client:
...     async with client.stream("alex", for_all_nodes=["cpu_load"], window=600) as stream:
...         async for update in stream:
...             print(update.changes)

It is a package of its own beside the server: it knows the protocol as docs/reference has it, and imports
nothing that the server is made of. docs/reference/python.md describes the names below.
"""

from ccstore.client.errors import ServerError
from ccstore.client.http import Client
from ccstore.client.messages import Change, JobEnd, Node, NodeUpdate, Result, Series, Update
from ccstore.client.stream import NodeStream, Stream
from ccstore.model import Query

__all__ = [
    "Change",
    "Client",
    "JobEnd",
    "Node",
    "NodeStream",
    "NodeUpdate",
    "Query",
    "Result",
    "Series",
    "ServerError",
    "Stream",
    "Update",
]
