"""What comes in: bodies and query strings, bounded, checked and turned into models."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from common.errors import ControllerError, Invalid
from common.web import problem

_Model = TypeVar("_Model", bound=BaseModel)


class Refused(ControllerError):
    """The input cannot be used; `response` says why."""

    def __init__(self, response: Response) -> None:
        super().__init__("refused")
        self.response = response


class NoQuery(BaseModel):
    """A query string without parameters."""

    model_config = ConfigDict(extra="forbid")


def idempotency_key(request: Request) -> str | None:
    """The request's Idempotency-Key, if it has one (draft-ietf-httpapi-idempotency-key-header).

    Raises:
        Invalid: it is empty or longer than 255 printable characters.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise Invalid("Idempotency-Key", "use 1 to 255 printable ASCII characters")
    return key


async def body(request: Request, model: type[_Model], limit_bytes: int) -> _Model:
    """The request's JSON body as a model.

    Raises:
        Refused: it is no JSON, too long, or does not fit.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        detail = f"Send the body as application/json, not {kind[:100] or 'without a Content-Type'}."
        raise Refused(problem.problem(415, "media-type", "Not JSON", detail, headers={"accept": "application/json"}))
    raw = await _read(request, limit_bytes)
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(problem.problem(400, "json", "The body is not valid JSON", str(error))) from None
    return fit(model, value)


def query(request: Request, model: type[_Model]) -> _Model:
    """The request's query string as a model; each parameter is given once at most.

    Raises:
        Refused: a parameter is unknown, given twice, or does not fit.
    """
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            twice = [{"pointer": f"/{name}", "detail": "given more than once"}]
            raise Refused(
                problem.problem(
                    422, "invalid", "The request is not valid", f"{name}: given more than once", errors=twice
                )
            )
        given[name] = value
    return fit(model, given)


def fit(model: type[_Model], value: object) -> _Model:
    """A value as a model.

    Raises:
        Refused: it does not fit.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Refused(problem.of_validation(error)) from None


async def _read(request: Request, limit_bytes: int) -> bytes:
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > limit_bytes:
                detail = f"The body is longer than {limit_bytes} bytes. Put large data where the pipeline can read it."
                raise Refused(problem.problem(413, "too-long", "The body is too long", detail, limit_bytes=limit_bytes))
    except ClientDisconnect:
        raise Refused(Response(status_code=499)) from None
    return bytes(raw)
