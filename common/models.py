"""What goes over the wire, and the record of a run as it was accepted.

Field names are those that clients of this kind of service already use (`run_id`, `status`,
`attached`, `stream_url`, ...). Times are RFC 3339 in UTC.
"""

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StringConstraints, field_validator

from common.names import RUN_ID
from common.phases import State

# Every value that ends up in Nextflow's argument vector starts with something else than a dash:
# it could otherwise be read as an option. Names are ASCII, and no part of a path can be `..`.
_Argument = Annotated[
    str, StringConstraints(max_length=1024, pattern=r"^[^-\x00-\x20\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$")
]
_Revision = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+@-]*([./][A-Za-z0-9_+@-]+)*$")
]
_Profile = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_-]*(,[A-Za-z_][A-Za-z0-9_-]*)*$")
]
_WorkDir = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")
]
_Person = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
_RunId = Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$")]
_ParameterName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunRequest(_Wire):
    """What a caller asks for with `POST /run`."""

    pipeline: _Argument = Field(
        description="What Nextflow runs: a path below the server's pipelines directory, a Git URL, or `owner/name`.",
        examples=["examples/simple-pipeline"],
    )
    revision: _Revision | None = Field(None, description="Branch, tag or commit of a pipeline from Git (`-r`).")
    profile: _Profile | None = Field(None, description="Configuration profiles, comma separated (`-profile`).")
    workdir: _WorkDir | None = Field(
        None, description="Directory for task work below the work volume's root (`-w`); relative, without `..`."
    )
    parameters: dict[_ParameterName, JsonValue] = Field(
        default_factory=dict,
        description="Pipeline parameters; they reach the pipeline with their types, through a `-params-file`.",
    )
    resume: StrictBool | _RunId = Field(
        False,
        description="Reuse finished tasks (`-resume`): of the run with this id, or with `true` of the latest "
        "run of the same pipeline (a fresh start where there is none).",
    )
    triggered_by: _Person | None = Field(None, description="Who or what asked, shown to everybody.")
    on_busy: Literal["attach", "reject"] = Field(
        "attach", description="While another run is active: be attached to it, or be refused with 409."
    )

    @field_validator("parameters")
    @classmethod
    def _carried_exactly(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for number in _numbers(parameters):
            # JSON has neither, so a -params-file could not carry them.
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError("NaN and Infinity are not JSON; use null or a string")
            # Nextflow (seen with 24.10) reads a longer one from a -params-file modulo 2**64, without a word.
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError(f"{number} does not fit into 64 bits; use a string")
        return parameters


def _numbers(value: Any) -> list[float | int]:
    found: list[float | int] = []
    rest = [value]
    while rest:
        match rest.pop():
            case bool():
                continue
            case float() | int() as number:
                found.append(number)
            case dict() as mapping:
                rest.extend(mapping.values())
            case list() as items:
                rest.extend(items)
    return found


class CancelMark(_Wire):
    """Who asked for the end of a run, and when."""

    requested_by: str
    requested_at: datetime


class RunRecord(_Wire):
    """A run as it was accepted; written once, into its Job, and never changed."""

    run_id: str
    request: RunRequest
    caller: str
    fingerprint: str = Field(description="Hash of the request: tells a retried POST from a reused key.")
    session_id: str = Field(description="Nextflow's session (UUID): what `-resume` needs to know.")
    resumed_from: str | None = None
    created_at: datetime


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

    total: ProcessProgress = ProcessProgress()
    processes: dict[str, ProcessProgress] = Field(default_factory=dict)


class RunInfo(_Wire):
    """A run as it is now, or as it ended."""

    run_id: str
    status: State
    pipeline: str
    revision: str | None = None
    profile: str | None = None
    triggered_by: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_seconds: float | None = None
    exit_code: int | None = None
    job_name: str
    attempt: int = 1
    session_id: str
    resumed_from: str | None = None
    message: str | None = Field(None, description="What a person should know about this state, in plain words.")


class RunStatus(RunInfo):
    """A run with the progress of its tasks."""

    progress: Progress | None = None


class RunResponse(_Wire):
    """Answer to `POST /run`: 201 for a run that was started, 200 for one the caller was attached to."""

    run_id: str
    status: State
    attached: bool
    pipeline: str
    triggered_by: str | None
    job_name: str
    status_url: str
    stream_url: str


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


class RunHistory(_Wire):
    """A page of past and present runs, newest first."""

    runs: list[RunInfo]
    next_cursor: str | None = Field(None, description="Pass as `cursor` for the next page; null on the last.")
