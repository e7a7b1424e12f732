"""The files of the pages: those of this folder, and Swagger UI's out of the package that carries it.

The paths below are all there are: nothing of a request becomes the name of a file. Swagger UI's package
is a Flask extension, so it is found but never imported.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response

_HERE = Path(__file__).parent
_KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
_PAGE = _CLOSED + "script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
_POLICIES = {
    # Text that comes out of a run can become nothing but text: the browser takes no string for markup.
    "follow.html": _PAGE + "require-trusted-types-for 'script'; trusted-types 'none'",
    # Swagger UI sets styles in its markup and has pictures in its style sheet.
    "docs.html": _CLOSED
    + "script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'",
}

# By path: the file, and whether it is one of Swagger UI's.
FILES = {
    "/openapi.json": ("openapi.json", False),
    "/docs": ("docs.html", False),
    "/docs/docs.css": ("docs.css", False),
    "/docs/docs.js": ("docs.js", False),
    "/docs/icon.svg": ("icon.svg", False),
    "/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js", True),
    "/docs/swagger-ui.css": ("swagger-ui.css", True),
    "/follow": ("follow.html", False),
    "/follow/follow.css": ("follow.css", False),
    "/follow/follow.js": ("follow.js", False),
    "/follow/icon.svg": ("icon.svg", False),
    "/follow/log.js": ("log.js", False),
    "/follow/run.js": ("run.js", False),
}


class _Content(NamedTuple):
    body: bytes
    tag: str


def media_type(path: str) -> str:
    """What the file at a path is."""
    return _KINDS[Path(FILES[path][0]).suffix]


def respond(path: str, asked: Headers) -> Response:
    """The file at a path; 304 where the client has it already."""
    name, theirs = FILES[path]
    content = _read(name, theirs)
    headers = {
        "cache-control": "no-cache",  # keep it, but ask: an upgrade changes what is behind these paths
        "content-security-policy": _POLICIES.get(name, _CLOSED.rstrip("; ")),
        "cross-origin-opener-policy": "same-origin",
        "etag": content.tag,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    if content.tag in asked.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(content.body, 200, headers, media_type(path))


@cache
def _read(name: str, theirs: bool) -> _Content:
    body = ((_swagger_ui() if theirs else _HERE) / name).read_bytes()
    return _Content(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _swagger_ui() -> Path:
    found = find_spec("flask_swagger_ui")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("Swagger UI's files are in the package flask-swagger-ui, which is not installed.")
    return Path(found.submodule_search_locations[0]) / "dist"
