"""Errors as problem documents (RFC 9457): the one place that gives an error its status code.

A document says what is wrong, where, and what would be right; `type` is a URN that does not
change, for programs. A problem that a later try may not meet carries `Retry-After`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from common import errors
from common.observe import request_id

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]

MEDIA_TYPE = "application/problem+json"


class Problem(Response):
    """A problem document as an answer.

    Attributes:
        title, detail: what it says, for where there is no room for a document (a WebSocket's close).
    """

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        super().__init__(to_json(body), status, {"cache-control": "no-store", **headers}, MEDIA_TYPE)
        self.title: str = body["title"]
        self.detail: str = body["detail"]


class Refused(errors.ControllerError):
    """A request that is answered with a problem before, or instead of, what it asks for."""

    def __init__(self, answer: Problem) -> None:
        super().__init__(answer.detail)
        self.problem = answer


class TooMany(Refused):
    """Refused for asking for more than is given."""


def problem(
    status: int, kind: str, title: str, detail: str, *, headers: dict[str, str] | None = None, **facts: Any
) -> Problem:
    """A problem document; `facts` become members of it."""
    body = {"type": f"urn:nextflow-controller:problem:{kind}", "title": title, "status": status, "detail": detail}
    if (current := request_id.get()) is not None:
        body["request_id"] = current
    body |= {name: value for name, value in facts.items() if value is not None}
    return Problem(status, body, headers or {})


def of_error(error: Exception) -> Problem:
    """The problem that an error is to a caller; one that is not the library's own tells nothing."""
    detail = str(error)
    match error:
        case Refused():
            return error.problem
        case errors.NotAllowed():
            where = [{"pointer": error.pointer, "detail": error.reason}]
            return problem(403, "not-allowed", "Not allowed here", detail, errors=where)
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


def of_validation(error: ValidationError, model: type[BaseModel], place: Callable[[Location], str]) -> Problem:
    """The problem that a value which does not fit its model is: every place at once, as `place` calls it."""
    places = [{"pointer": place(found["loc"]), "detail": _words(found, model)} for found in error.errors()[:20]]
    detail = "; ".join(f"{found['pointer'] or 'the body'}: {found['detail']}" for found in places)
    return problem(422, "invalid", "The request is not valid", detail, errors=places)


def pointer(location: Location) -> str:
    """A place in a body as a JSON pointer (RFC 6901)."""
    if location[-1:] == ("[key]",):  # pydantic's mark for a name that is wrong, not what it names
        location = location[:-1]
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


_WORDS = {
    "bool_parsing": "use true or false",
    "dict_type": "use a JSON object",
    "extra_forbidden": "unknown; {known}",
    "greater_than_equal": "use {ge} or more",
    "int_from_float": "use a whole number",
    "int_parsing": "use a whole number",
    "int_parsing_size": "use a smaller number",
    "less_than_equal": "use {le} or less",
    "literal_error": "use {expected}",
    "missing": "is missing",
    "model_type": "use a JSON object",
    "string_too_long": "use at most {max_length} characters",
}


def _words(found: "ErrorDetails", model: type[BaseModel]) -> str:
    """What would be right; pydantic's own words where there are no better ones."""
    if (words := _WORDS.get(found["type"])) is None:
        return found["msg"].removeprefix("Value error, ")
    known = f"use {', '.join(model.model_fields)}" if model.model_fields else "none is taken here"
    return words.format(known=known, **found.get("ctx", {}))


def _retry(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"retry-after": str(seconds)}
