"""`helm test`: every function is ready, and answers through its Service who shows a token, and nobody else."""

import json
import os
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

API = "/api/v1/pipeline"
NOBODY = "run_id=run-aaaaaaaaaaaaaaaa"
CALLS = {
    "run": ("POST", f"{API}/run", 422),
    "status": ("GET", f"{API}/status?{NOBODY}", 404),
    "active": ("GET", f"{API}/active", 200),
    "cancel": ("DELETE", f"{API}/cancel?{NOBODY}", 404),
    "history": ("GET", f"{API}/history", 200),
    "stream": ("GET", f"{API}/stream?{NOBODY}", 404),
    "docs": ("GET", "/openapi.json", 200),
}
OPEN = {"docs"}
PATIENCE_SECONDS = 30


def call(method: str, url: str, token: str | None) -> tuple[int, bytes]:
    """One call; its status and body. A Service may lead nowhere for a moment after its pods have changed."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = Request(url, b"{}" if method == "POST" else None, headers, method=method)  # noqa: S310  # http, below
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310  # as above
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def main(release: str, token: str | None) -> int:
    """Ask every function; the number of those that answer otherwise than they should."""
    failures = 0
    for function, (method, path, expected) in CALLS.items():
        url = f"http://{release}-{function}"
        ready, state = call("GET", f"{url}/readyz", None)
        status, _ = call(method, url + path, token)
        stranger, _ = call(method, url + path, None)
        refused = stranger == (401 if token and function not in OPEN else expected)
        good = ready == 200 and json.loads(state)["status"] == "ready" and status == expected and refused
        print("ok    " if good else "FAILED", function, ready, state.decode(), status, stranger)
        failures += not good
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ.get("TOKEN")))
