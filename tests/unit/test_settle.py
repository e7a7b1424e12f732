"""When a head that does not come is given up."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common import claim
from common.jobs import Job, Lease, end_state, info, state
from common.look import Sight
from common.models import CancelMark
from common.phases import State
from common.platform import Platform
from common.settings import Settings
from common.settle import settle
from tests.unit.samples import MARK, job, record, run_id

LIMIT = timedelta(seconds=900)
JOB = job(launched=True, message="No node takes the pod.")


def awaited(seconds: float, read: Job = JOB) -> Job:
    """The Job, its head asked for so long before the limit."""
    return replace(read, awaited_since=datetime.now(UTC) - LIMIT + timedelta(seconds=seconds))


class Stopping:
    """A runner that notes what it is asked to stop."""

    def __init__(self) -> None:
        self.marks: list[CancelMark] = []

    async def stop(self, read: Job, mark: CancelMark) -> Job:
        self.marks.append(mark)
        return replace(read, mark=mark)


async def settled(read: Job) -> tuple[Job | None, list[CancelMark]]:
    """What becomes of a Job that has the slot, and the marks it is stopped with."""
    runner = Stopping()
    platform = SimpleNamespace(settings=Settings(), runner=runner)
    return await settle(cast("Platform", platform), Sight(Lease("1", read.holder), read), 0), runner.marks


async def test_a_head_that_does_not_come_is_given_up() -> None:
    """It is being ended, and will have failed for what kept it."""
    found, [mark] = await settled(awaited(-1))
    assert found is not None
    assert (mark.requested_by, mark.reason) == (
        "controller",
        "It did not start within 900 seconds. No node takes the pod.",
    )
    assert (state(found), info(found).message) == (State.CANCELLING, mark.reason)
    over = replace(found, condition="Failed")
    assert (end_state(over), state(over), info(over).message) == (State.FAILED, State.FAILED, mark.reason)


@pytest.mark.parametrize("case", ["in time", "has come", "marked already"])
async def test_any_other_goes_on(case: str) -> None:
    """Nothing is written."""
    late = awaited(-1, replace(JOB, mark=MARK))
    read = {"in time": awaited(60), "has come": JOB, "marked already": late}[case]
    assert await settled(read) == (read, [])


@pytest.mark.parametrize(
    ("age_seconds", "changes", "expected"),
    [
        (0, {}, True),
        (901, {}, False),
        (901, {"started_at": datetime.now(UTC)}, True),
        (0, {"mark": MARK}, False),
        (0, {"launched": False}, False),
    ],
    ids=["starting", "late", "late but running", "ending", "queued"],
)
def test_a_record_of_one_that_is_late_is_not_enough(age_seconds: int, changes: dict[str, Any], expected: bool) -> None:
    """However fresh: nobody would ever look, as long as somebody keeps asking how it is."""
    accepted = JOB.record.model_copy(update={"created_at": datetime.now(UTC) - timedelta(seconds=age_seconds)})
    found = info(replace(JOB, record=accepted, **changes))
    platform = cast("Platform", SimpleNamespace(settings=Settings()))
    assert claim._tells_enough(platform, found, record(run_id=run_id(2))) is expected
    assert not claim._tells_enough(platform, found, accepted)
