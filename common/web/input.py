"""What comes in: bodies and query strings, bounded, checked and turned into models."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import HTTPConnection, Request

from common.errors import Invalid
from common.models import LEVELS
from common.web import problem
from common.web.problem import Refused

_Model = TypeVar("_Model", bound=BaseModel)
_RIGHT = f"Send one JSON object in UTF-8, at most {LEVELS} levels deep and without NaN or Infinity."


KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")


def idempotency_key(request: HTTPConnection) -> str | None:
    """The request's Idempotency-Key, if it has one (draft-ietf-httpapi-idempotency-key-header).

    Raises:
        Invalid: it has several, or one that does not fit.
    """
    key = header(request, "Idempotency-Key")
    if key is not None and not KEY.fullmatch(key):
        raise Invalid("Idempotency-Key", "use 1 to 255 printable ASCII characters")
    return key


def header(request: HTTPConnection, name: str) -> str | None:
    """A header that is given once, if at all.

    Raises:
        Invalid: it is given more often.
    """
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise Invalid(name, "given more than once")
    return values[0] if values else None


async def body(request: Request, model: type[_Model], limit_bytes: int) -> _Model:
    """The request's JSON body as a model.

    Raises:
        Refused: it is no JSON, too long, or does not fit.
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        came = f"as {kind[:100]}" if kind else "without a Content-Type"
        raise _not_json(f"Send the body as application/json; this one came {came}.", accept="application/json")
    if coding := request.headers.get("content-encoding"):
        raise _not_json(f"Send the body as it is; this one is encoded ({coding[:100]}).", accept_encoding="identity")
    raw = await read(request, limit_bytes)
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        detail = f"{error}. {_RIGHT}" if raw else f"It is empty. {_RIGHT}"
        raise Refused(problem.problem(400, "json", "The body is not valid JSON", detail)) from None
    return fit(model, value, problem.pointer)


def query(request: HTTPConnection, model: type[_Model]) -> _Model:
    """The request's query string as a model; each parameter is given once at most.

    Raises:
        Invalid: a parameter is given twice.
        Refused: one is unknown, or does not fit.
    """
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise Invalid(name, "given more than once")
        given[name] = value
    return fit(model, given, lambda location: str(location[0]))


def fit(model: type[_Model], value: object, place: Callable[[problem.Location], str]) -> _Model:
    """A value as a model; `place` says how a place in it is called.

    Raises:
        Refused: it does not fit.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Refused(problem.of_validation(error, model, place)) from None


async def read(request: Request, limit_bytes: int) -> bytes:
    """The request's body, once it is here whole.

    Raises:
        Refused: it is too long.
        ClientDisconnect: the client has gone, or what it sends is no HTTP any more.
    """
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told[:20]) > limit_bytes:  # refused before it is sent
        raise _too_long(limit_bytes)
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit_bytes:
            raise _too_long(limit_bytes)
    return bytes(raw)


def _not_json(detail: str, **headers: str) -> Refused:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refused(problem.problem(415, "media-type", "Not JSON", detail, headers=named))


def _too_long(limit_bytes: int) -> Refused:
    detail = f"The body is longer than {limit_bytes} bytes. Put large data where the pipeline can read it."
    return Refused(problem.problem(413, "too-long", "The body is too long", detail, limit_bytes=limit_bytes))
