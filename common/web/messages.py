"""What clients are sent that no model of an endpoint describes: the events of streams, and problems.

These models describe, for the OpenAPI document; nothing is sent through them. Events are made as plain
dictionaries, as there may be thousands a second (common.events), and a test holds both together.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from common.events import CURSOR
from common.models import Progress, RunStatus
from common.names import RUN_ID

_Cursor = Annotated[str, StringConstraints(pattern=rf"^{CURSOR.pattern}$")]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class _Event(_Told):
    id: _Cursor = Field(description="A place in the run's log: go on behind it with `Last-Event-ID` or `after`.")
    run_id: Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$")]
    timestamp: datetime


class LogData(_Told):
    """A line of the log."""

    line: str = Field(description="The text, without its newline; what is not UTF-8 is replaced by U+FFFD.")
    stream: Literal["stdout", "stderr"]
    timestamp_source: Literal["line", "runtime"] = Field(
        description="Whose time `timestamp` is: the ISO 8601 one that the line begins with, or the runtime's."
    )
    base64: str | SkipJsonSchema[None] = Field(None, description="The exact bytes of a text that is not UTF-8.")


class LogEvent(_Event):
    """A line, in the order of the log, exactly once."""

    type: Literal["log"]
    data: LogData


class StatusEvent(_Event):
    """The run as it is now: first of all, and whenever it has changed."""

    type: Literal["status"]
    data: RunStatus


class NotKnown(_Told):
    """Nothing, at this moment."""


class ProgressEvent(_Event):
    """How far the run's tasks are, whenever it has changed."""

    type: Literal["progress"]
    data: Progress | NotKnown


class CompleteEvent(_Event):
    """The run has ended and everything of it was sent; with this `id` there is nothing more to come (204)."""

    type: Literal["complete"]
    data: RunStatus


class GapData(_Told):
    """What is missing, and why."""

    reason: str
    after: str | SkipJsonSchema[None] = Field(None, description="The last line before the gap, where it is known.")
    until: str | SkipJsonSchema[None] = Field(
        None, description="What is known again is behind this, where it is known."
    )


class GapEvent(_Event):
    """Lines are gone for good: nobody holds them any more."""

    type: Literal["gap"]
    data: GapData


class RestartedData(_Told):
    """Which attempt begins here, and why."""

    attempt: int = Field(ge=2)
    reason: str


class RestartedEvent(_Event):
    """The head was started again: behind this comes what the next attempt says."""

    type: Literal["restarted"]
    data: RestartedData


class ErrorData(_Told):
    """What has gone wrong."""

    detail: str


class ErrorEvent(_Event):
    """The stream cannot go on, or how the run ended is not known; the last event of its stream."""

    type: Literal["error"]
    data: ErrorData


class Event(
    RootModel[
        Annotated[
            LogEvent | StatusEvent | ProgressEvent | CompleteEvent | GapEvent | RestartedEvent | ErrorEvent,
            Field(discriminator="type"),
        ]
    ]
):
    """An event of a run, the same on every transport."""

    model_config = ConfigDict(
        defer_build=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "run-7vcdachs44srd3zl.1.1795503679204-118000000",
                    "type": "log",
                    "run_id": "run-7vcdachs44srd3zl",
                    "timestamp": "2026-11-24T19:01:19.204118Z",
                    "data": {
                        "line": "[1a/e93ff6] Submitted process > COMPOSE (sample_3)",
                        "stream": "stdout",
                        "timestamp_source": "runtime",
                    },
                }
            ]
        },
    )


# What a problem's `type` may be, and the status that it comes with.
PROBLEMS = {
    "json": 400,
    "host": 400,
    "http": 400,
    "token": 401,
    "role": 403,
    "foreign-origin": 403,
    "not-allowed": 403,
    "run-not-found": 404,
    "nothing-active": 404,
    "not-found": 404,
    "method": 405,
    "not-acceptable": 406,
    "too-slow": 408,
    "busy": 409,
    "too-long": 413,
    "media-type": 415,
    "foreign-host": 421,
    "invalid": 422,
    "key-reused": 422,
    "too-many": 429,
    "head-too-long": 431,
    "internal": 500,
    "overloaded": 503,
    "unavailable": 503,
    "outcome-unknown": 503,
}
PROBLEM_URN = "urn:nextflow-controller:problem:"


class Place(_Told):
    """A place in the request, and what is wrong there."""

    pointer: str = Field(description="A parameter's or header's name, or a JSON Pointer into the body.")
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457): what is wrong, where, and what would be right."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    type: str = Field(
        description=f"A URN that does not change, for programs: `{PROBLEM_URN}` and one of "
        + ", ".join(f"`{kind}` ({status})" for kind, status in PROBLEMS.items())
        + "."
    )
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    request_id: str | SkipJsonSchema[None] = Field(None, description="As in `X-Request-Id`, and in the server's log.")
    errors: list[Place] | SkipJsonSchema[None] = Field(None, description="Every place at once.")
    run_id: str | SkipJsonSchema[None] = Field(None, description="The run that it is about.")
    pipeline: str | SkipJsonSchema[None] = Field(None, description="What the active run runs (`busy`).")
    triggered_by: str | SkipJsonSchema[None] = Field(None, description="Who asked for the active run (`busy`).")
    dependency: str | SkipJsonSchema[None] = Field(None, description="What does not answer (`unavailable`).")
    limit_bytes: int | SkipJsonSchema[None] = Field(None, description="The longest body that is taken (`too-long`).")
