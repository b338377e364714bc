"""Measure this machine and send it to a store, over HTTP: the load, and the memory in use.

    python examples/send_http.py alex

Needs nothing but Python on Linux. The argument is the cluster. CCSTORE_URL tells where the store is,
CCSTORE_TOKEN holds a token if it wants one. Run it every minute, from a timer say.
"""

import json
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

URL = os.environ.get("CCSTORE_URL") or "http://127.0.0.1:8082"
TOKEN = os.environ.get("CCSTORE_TOKEN")


def measure() -> dict[str, float]:
    """Return the values of this machine by metric, in the units of the built-in table."""
    load = float(Path("/proc/loadavg").read_text().split()[0])
    memory = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
    used = (int(memory["MemTotal"]) - int(memory["MemAvailable"])) * 1024
    return {"cpu_load": load, "mem_used": used / 1e9}


def main() -> int:
    """Send one sample of each metric; return 0, or 1 if the store did not take them."""
    cluster = urllib.parse.quote(sys.argv[1])
    host = socket.gethostname().partition(".")[0]
    now = int(time.time())
    lines = [
        f"{metric},hostname={host},type=node value={value} {now}\n" for metric, value in measure().items()
    ]
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    request = urllib.request.Request(
        f"{URL}/api/write?cluster={cluster}", data="".join(lines).encode(), headers=headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            print(f"{len(lines)} samples of {host} sent")
            return 0
    except urllib.error.HTTPError as error:
        answer = json.loads(error.read() or b"{}")
        print(f"{URL}: {error.code} {answer.get('error', error.reason)}", file=sys.stderr)
        for reject in answer.get("lines", []):  # of a 400; the other lines are stored
            print(f"line {reject['line']}: {reject['error']}", file=sys.stderr)
    except OSError as error:
        print(f"{URL}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
