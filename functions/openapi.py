"""The API's OpenAPI document, made of all functions' declarations.

    python -m functions.openapi > functions/docs/openapi.json

The result is committed and a test holds it up to date: the function that serves it imports no other
function, and has no work to do.
"""

import importlib
import json
import tomllib
from pathlib import Path
from typing import Any

from common.web import health
from common.web.call import Endpoint
from common.web.openapi import Section, document

_PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
_ABOUT = """
One run is active at a time. Whoever asks for a run meanwhile is attached to the active one, and everybody follows the
same live log, status and task progress.

**Errors** are problem documents (RFC 9457, `application/problem+json`): what is wrong, where, and what would be right.
Their `type` is a URN that does not change. What a later try may not meet carries `Retry-After`. Besides what each
operation lists, an unknown path is 404, and a method that a path does not take 405 with `Allow`; `HEAD` goes wherever
`GET` does.

**Callers** show a bearer token of the role `read` or `run`, and each has a quota for each function, told in
`RateLimit` and `RateLimit-Policy`. Request bodies are JSON and nothing else. Unknown parameters and members are
refused, not ignored. Times are RFC 3339 in UTC.
"""


def openapi() -> dict[str, Any]:
    """The document of the whole API; the version is the project's."""
    project = tomllib.loads(_PROJECT.read_text("utf-8"))["project"]
    info = {
        "title": "Nextflow controller",
        "version": project["version"],
        "summary": project["description"],
        "description": _ABOUT.strip(),
        "license": {"name": project["license"], "identifier": project["license"]},
    }
    return document(info, _sections())


def _sections() -> list[Section]:
    runs = [endpoint for name in ("run", "status", "active", "cancel", "history") for endpoint in _endpoints(name)]
    return [
        Section("runs", "Start a run, see it, end it.", runs),
        Section("stream", "Follow a run live, from any place in its log.", _endpoints("stream")),
        Section("health", "For whoever operates it: every function answers these itself.", health.ENDPOINTS),
    ]


def _endpoints(name: str) -> tuple[Endpoint, ...]:
    module = importlib.import_module(f"functions.{name}.main")
    endpoints: tuple[Endpoint, ...] = getattr(module, name).app.endpoints
    return endpoints


def render() -> str:
    """The text of the document."""
    return json.dumps(openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(render(), end="")
