"""Values for tests: a record, a Job and a run that are whole, each to be varied by keywords."""

from datetime import UTC, datetime, timedelta
from typing import Any

from common.jobs import Job
from common.models import CancelMark, RunInfo, RunRecord, RunRequest
from common.phases import State

RUN_ID = "run-aaaaaaaaaaaaaaaa"
SESSION = "7f3c6d1e-0000-4000-8000-000000000001"
CREATED = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
STARTED = CREATED + timedelta(seconds=2)
FINISHED = CREATED + timedelta(seconds=5, microseconds=500_400)
MARK = CancelMark(requested_by="ada", requested_at=CREATED)


def run_id(number: int) -> str:
    """A run id for each number; their order is the numbers'."""
    letters = "234567abcdefghijklmnopqrstuvwxyz"
    digits = [letters[number // 32**place % 32] for place in range(16)]
    return "run-" + "".join(reversed(digits))


def record(**changes: Any) -> RunRecord:
    """A record as it was accepted."""
    values = {
        "run_id": RUN_ID,
        "request": RunRequest(pipeline="owner/name", revision="v1", profile="test", triggered_by="ada"),
        "caller": "token-1",
        "fingerprint": "f",
        "session_id": SESSION,
        "created_at": CREATED,
    }
    return RunRecord(**{**values, **changes})


def job(**changes: Any) -> Job:
    """A Job, inert unless told otherwise."""
    return Job(**{"record": record(), "uid": "uid-1", "version": "1", **changes})


def run(number: int = 0, status: State = State.RUNNING, **changes: Any) -> RunInfo:
    """A run; those of higher numbers were created later."""
    values = {
        "run_id": run_id(number),
        "status": status,
        "pipeline": "owner/name",
        "created_at": CREATED + timedelta(seconds=number),
        "job_name": run_id(number),
        "session_id": SESSION,
    }
    return RunInfo(**{**values, **changes})
