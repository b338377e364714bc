"""Ask a store for one metric of all hosts of a cluster, and print those with the most of it.

    python examples/query.py alex cpu_load 10

Needs httpx. CCSTORE_URL tells where the store is, CCSTORE_TOKEN holds a token if it wants one.
"""

import os
import sys
import time

import httpx

URL = os.environ.get("CCSTORE_URL") or "http://127.0.0.1:8082"
TOKEN = os.environ.get("CCSTORE_TOKEN")
MINUTES = 15


def main() -> int:
    """Print a ranking; return 0, or 1 if there is nothing to rank."""
    cluster, metric, count = [*sys.argv[1:], "10"][:3]
    now = int(time.time())
    question = {
        "cluster": cluster,
        "from": now - MINUTES * 60,
        "to": now,
        "for-all-nodes": [metric],
        "with-data": False,  # the averages are enough
    }
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    try:
        answer = httpx.post(f"{URL}/api/query", json=question, headers=headers, timeout=60)
    except httpx.HTTPError as error:
        print(f"{URL}: {error}", file=sys.stderr)
        return 1
    if answer.status_code != httpx.codes.OK:
        print(f"{URL}: {answer.status_code} {answer.text.strip()}", file=sys.stderr)
        return 1

    averages = {}
    found = answer.json()
    for query, results in zip(found.get("queries", []), found["results"], strict=True):
        for result in results:  # none if the host has no such metric, else one
            if "error" in result:
                print(f"{query['host']}: {result['error']}", file=sys.stderr)
            elif result["avg"] is not None:  # null if it was silent
                averages[query["host"]] = result["avg"]
    if not averages:
        print(f"nothing of {metric} in {cluster}", file=sys.stderr)
        return 1

    print(f"{metric} of {len(averages)} hosts of {cluster}, average of {MINUTES} minutes")
    for place, host in enumerate(sorted(averages, key=averages.__getitem__, reverse=True)[: int(count)], 1):
        print(f"{place:4}  {host:16} {averages[host]:12.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
