"""GET /openapi.json, /docs, /follow: the API described and tried out, and a page that follows a run.

Open to everybody and without a limit: it tells nothing about any run, and what a browser does from
these pages is let in or refused by the other functions like any other call.
"""

from collections.abc import Callable, Sequence

from pydantic import BaseModel
from starlette.responses import Response

from common.web.call import Answer, Call, Handler, Nothing
from common.web.endpoint import Function, endpoint
from functions.docs.files import FILES, media_type, respond

_DOCUMENT = "/openapi.json"


class PageQuery(BaseModel):
    """Query parameters of a page: any, its script reads them in the browser."""


def _at(path: str, beside: Function | None) -> Callable[[Handler], Function]:
    answers = {200: Answer("The file.", {media_type(path): None}), 304: Answer("The client has it already.")}
    return endpoint("GET", path, prefix="", role=None, query=PageQuery, answers=answers, beside=beside)


def _all(paths: Sequence[str]) -> Function | None:
    return _at(paths[0], _all(paths[1:]))(_file) if paths else None


async def _file(call: Call[PageQuery, Nothing]) -> Response:
    """A page, or one of its files."""
    return respond(call.connection.scope["path"], call.connection.headers)


@_at(_DOCUMENT, _all([path for path in FILES if path != _DOCUMENT]))
async def docs(call: Call[PageQuery, Nothing]) -> Response:
    """This API, as an OpenAPI 3.1 document."""
    return await _file(call)
