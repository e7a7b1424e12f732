"""What goes over the wire, and the record of a run as it was accepted.

Field names are those that clients of this kind of service already use (`run_id`, `status`,
`attached`, `stream_url`, ...). Times are RFC 3339 in UTC.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    StrictBool,
    StringConstraints,
)
from pydantic_core import core_schema

from common.names import RUN_ID
from common.phases import State

LEVELS = 199  # of objects and arrays in a request: its record has one more, and 200 can be read


@dataclass(frozen=True, slots=True)
class Says:
    """In an annotation: what a value that does not fit is told, in place of the pattern it does not match."""

    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """The annotated schema as it is, with these words for any of its errors."""
        return core_schema.custom_error_schema(handler(source), "worded", custom_error_message=self.words)


# Every value that ends up in Nextflow's argument vector starts with something else than a dash, or it could be read as
# an option, and than an @, in whose place Nextflow puts what is in the file of that name. Names are ASCII, and no part
# of a path can be `..`.
_Argument = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^[^-@\x00-\x20\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"),
    Says(
        "use a path, a URL or owner/name: at most 1024 characters, the first neither a dash, an @ nor a space, "
        "none a control character"
    ),
]
_Revision = Annotated[
    str,
    StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+@-]*([./][A-Za-z0-9_+@-]+)*$"),
    Says(
        "use a branch, tag or commit: at most 255 letters, digits and _ + @ - . /, beginning with a letter, a digit "
        "or _, and . and / only between others (no ..)"
    ),
]
_Profile = Annotated[
    str,
    StringConstraints(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_-]*(,[A-Za-z_][A-Za-z0-9_-]*)*$"),
    Says(
        "use names separated by commas, without spaces: letters, digits, _ and -, each name beginning with a letter "
        "or _; at most 255 characters"
    ),
]
_WorkDir = Annotated[
    str,
    StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$"),
    Says(
        "use a relative path of letters, digits and _ . - / in which each part begins with a letter, a digit or _ "
        "(no ..); at most 255 characters"
    ),
]
_Person = Annotated[
    str,
    StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
    Says("use 1 to 128 characters, none a control character"),
]
_A_RUN_ID = "a run's id as it was received: run- and 16 of the characters a-z and 2-7"
RunId = Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$"), Says(f"use {_A_RUN_ID}")]
_Session = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_ParameterName = Annotated[
    str, StringConstraints(min_length=1, max_length=256), Says("use names of 1 to 256 characters")
]


class _Wire(BaseModel):
    # Built when first used: a function's cold start does not pay for the models of the others.
    # An answer has all its fields, whether or not they have a default, and its schema says so.
    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, json_schema_serialization_defaults_required=True
    )


def _carried_exactly(value: JsonValue) -> JsonValue:
    for leaf, levels in _leaves(value):
        if levels > LEVELS:
            raise ValueError(f"more than {LEVELS} levels deep; use a string, or a file where the pipeline can read it")
        # JSON has neither, so a -params-file could not carry them.
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError("NaN and Infinity are not JSON; use null or a string")
        # Nextflow (seen with 24.10) reads a longer one from a -params-file modulo 2**64, without a word.
        if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
            raise ValueError("a whole number that does not fit into 64 bits; use a string")
    return value


def _leaves(value: Any) -> Iterator[tuple[Any, int]]:
    """What is neither an object nor an array, or an empty one, and how many of those it is in."""
    rest = [(value, 2)]  # the request, and its parameters
    while rest:
        found, levels = rest.pop()
        match found:
            case dict() | list() if found:
                rest += [(inner, levels + 1) for inner in (found.values() if isinstance(found, dict) else found)]
            case dict() | list():
                yield None, levels + 1
            case bool():
                yield None, levels
            case _:
                yield found, levels


_Parameter = Annotated[JsonValue, AfterValidator(_carried_exactly)]


class RunRequest(_Wire):
    """What a caller asks for with `POST /run`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pipeline": "examples/simple-pipeline", "parameters": {"delay_seconds": 2}, "triggered_by": "ada"}
            ]
        }
    )

    pipeline: _Argument = Field(
        description="What Nextflow runs: a path below the server's pipelines directory, a Git URL, or `owner/name`.",
        examples=["examples/simple-pipeline"],
    )
    revision: _Revision | None = Field(None, description="Branch, tag or commit of a pipeline from Git (`-r`).")
    profile: _Profile | None = Field(None, description="Configuration profiles, comma separated (`-profile`).")
    workdir: _WorkDir | None = Field(
        None, description="Directory for task work below the work volume's root (`-w`); relative, without `..`."
    )
    parameters: dict[_ParameterName, _Parameter] = Field(
        default_factory=dict,
        description="Pipeline parameters; they reach the pipeline with their types, through a `-params-file`. "
        f"Whole numbers have to fit into 64 bits, and a request is at most {LEVELS} levels deep.",
    )
    resume: Annotated[StrictBool | RunId, Says(f"use true, false, or {_A_RUN_ID}")] = Field(
        False,
        description="Reuse finished tasks (`-resume`): of the run with this id, or with `true` of the latest "
        "run of the same pipeline (a fresh start where there is none).",
    )
    triggered_by: _Person | None = Field(None, description="Who or what asked, shown to everybody.")
    on_busy: Literal["attach", "reject"] = Field(
        "attach", description="While another run is active: be attached to it, or be refused with 409."
    )


class CancelMark(_Wire):
    """Who asked for the end of a run, and when; `reason`: why the controller did, for which the run has failed."""

    requested_by: str
    requested_at: AwareDatetime
    reason: str | None = None


class RunRecord(_Wire):
    """A run as it was accepted; written once, into its Job, and never changed."""

    run_id: RunId
    request: RunRequest
    caller: str
    fingerprint: str = Field(description="Hash of the request: tells a retried POST from a reused key.")
    session_id: _Session = Field(description="Nextflow's session (UUID): what `-resume` needs to know.")
    resumed_from: RunId | None = None
    created_at: AwareDatetime


class ProcessProgress(_Wire):
    """Counts of the tasks of one process (or of all)."""

    submitted: int = Field(0, ge=0, description="Handed to the executor so far, each attempt counted.")
    running: int = Field(0, ge=0, description="Handed to the executor and not ended.")
    succeeded: int = Field(0, ge=0)
    failed: int = Field(0, ge=0, description="Ended badly and not retried.")
    cached: int = Field(0, ge=0, description="Taken from an earlier run by `resume`.")
    retried: int = Field(0, ge=0, description="Attempts that were made again.")


class Progress(_Wire):
    """How far a run's tasks are: all together, and per process in order of appearance."""

    total: ProcessProgress = Field(default_factory=ProcessProgress)
    processes: dict[str, ProcessProgress] = Field(default_factory=dict)


class RunInfo(_Wire):
    """A run as it is now, or as it ended."""

    run_id: RunId
    status: State
    pipeline: str
    revision: str | None = None
    profile: str | None = None
    triggered_by: str | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    duration_seconds: float | None = None
    exit_code: int | None = None
    job_name: str
    attempt: int = Field(1, ge=1, description="Which head it has: one that is taken from its node is started again.")
    session_id: _Session
    resumed_from: RunId | None = None
    message: str | None = Field(None, description="What a person should know about this state, in plain words.")
    left_behind: tuple[str, ...] = Field(
        (), description="Of a run that has ended: the pods, Jobs or processes of it that are still there."
    )


class RunStatus(RunInfo):
    """A run with the progress of its tasks."""

    progress: Progress | None = None


class FollowerCounts(_Wire):
    """Open streams of a run, by transport."""

    sse: int = Field(0, ge=0)
    websocket: int = Field(0, ge=0)
    ndjson: int = Field(0, ge=0)
    text: int = Field(0, ge=0)


_Count = Annotated[int, Field(ge=0, le=2**53)]


class Relay(_Wire):
    """What has become of a run's log on its way to Redis, as who relays it counts: once a second."""

    seen: _Count = Field(0, description="Lines that were read of the log; those of a log that is read again once more.")
    relayed: _Count = Field(0, description="Lines that Redis has taken.")
    duplicates: _Count = Field(0, description="Lines that Redis had already, from somebody else who relays.")
    gaps: _Count = Field(0, description="Places where lines are gone for good; how many, nobody can count.")
    lag_seconds: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="How old the newest line was when Redis had it. Both times are of the clock of the machine that "
        "the run is on; null where it was relayed from elsewhere.",
    )


class Streaming(_Wire):
    """Who follows a run's log, over all replicas, and what has become of it on its way to them."""

    followers: FollowerCounts
    tailers: int = Field(ge=0, description="Processes that read the log for these followers, each once.")
    relay: Relay | None = Field(description="Null where nobody has, as far as Redis knows.")


class RunOverview(RunStatus):
    """A run with the progress of its tasks and the state of its streams."""

    streaming: Streaming | None = Field(None, description="Null while Redis is away: it is not known then.")


class RunResponse(_Wire):
    """Answer to `POST /run`: 201 for a run that was started, 200 for one the caller was attached to."""

    run_id: str
    status: State
    attached: bool
    pipeline: str
    triggered_by: str | None
    job_name: str
    status_url: str
    stream_url: str = Field(description="Server-Sent Events, NDJSON or plain text, by Accept.")
    websocket_url: str = Field(description="The same as a WebSocket; relative, like `stream_url`, to the server.")


class ActiveRunStatus(_Wire):
    """Whether a run is active, and which."""

    active: bool
    run: RunInfo | None = None


class CancelResponse(_Wire):
    """What became of a cancel: `cancelled` is true once the run is gone and ended by a cancel."""

    run_id: str
    status: State
    cancelled: bool
    detail: str


class TicketResponse(_Wire):
    """Answer to `POST /stream/ticket`."""

    ticket: str = Field(description="Put it into a stream's URL: `?ticket=…`. Of use once.")
    expires_in_seconds: int


class RunHistory(_Wire):
    """A page of past and present runs, newest first."""

    runs: list[RunInfo]
    next_cursor: str | None = Field(None, description="Pass as `cursor` for the next page; null on the last.")
