"""Errors as problem documents (RFC 9457): the one place that gives an error its status code.

A document says what is wrong, where, and what would be right; `type` is a URN that does not
change, for programs. A problem that a later try may not meet carries `Retry-After`.
"""

from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from common import errors
from common.observe import request_id

MEDIA_TYPE = "application/problem+json"


def problem(
    status: int, kind: str, title: str, detail: str, *, headers: dict[str, str] | None = None, **facts: Any
) -> Response:
    """A problem document; `facts` become members of it."""
    body = {"type": f"urn:nextflow-controller:problem:{kind}", "title": title, "status": status, "detail": detail}
    if (current := request_id.get()) is not None:
        body["request_id"] = current
    body |= {name: value for name, value in facts.items() if value is not None}
    return Response(to_json(body), status, {"cache-control": "no-store", **(headers or {})}, MEDIA_TYPE)


def of_error(error: errors.ControllerError) -> Response:
    """The problem that an error of the library is to a caller."""
    detail = str(error)
    match error:
        case errors.Invalid():
            where = [{"pointer": error.pointer, "detail": error.reason}]
            return problem(422, "invalid", "The request is not valid", detail, errors=where)
        case errors.RunNotFound():
            return problem(404, "run-not-found", "No such run", detail, run_id=error.run_id)
        case errors.NothingActive():
            return problem(404, "nothing-active", "No run is active", detail)
        case errors.Busy():
            return problem(
                409,
                "busy",
                "Another run has the slot",
                detail,
                headers=_retry(error.retry_after_seconds),
                run_id=error.run_id,
                pipeline=error.pipeline,
                triggered_by=error.triggered_by,
            )
        case errors.KeyReused():
            return problem(422, "key-reused", "Idempotency-Key used with another body", detail, run_id=error.run_id)
        case errors.OutcomeUnknown():
            headers = _retry(error.retry_after_seconds)
            return problem(
                503, "outcome-unknown", "The outcome is not known", detail, headers=headers, run_id=error.run_id
            )
        case errors.Unavailable():
            headers = _retry(error.retry_after_seconds)
            return problem(
                503, "unavailable", "A dependency does not answer", detail, headers=headers, dependency=error.dependency
            )
        case _:
            return problem(
                500, "internal", "Something is wrong on our side", "The error was logged with this request's id."
            )


def of_validation(error: ValidationError) -> Response:
    """The problem that a body which does not fit its model is: every place at once."""
    places = [{"pointer": _pointer(found["loc"]), "detail": found["msg"]} for found in error.errors()[:20]]
    detail = "; ".join(f"{place['pointer'] or '/'}: {place['detail']}" for place in places)
    return problem(422, "invalid", "The request is not valid", detail, errors=places)


def _pointer(location: tuple[int | str, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _retry(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"retry-after": str(seconds)}
