"""What the simulation found once in thousands of histories, each in the fewest steps that show it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from common import cancel, claim, look
from common.errors import RunNotFound, Unavailable
from common.jobs import Job, info
from common.lock import Verdict
from common.models import CancelMark
from common.phases import State
from common.platform import Platform
from common.settings import Settings
from tests.unit import samples


async def test_what_does_not_tell_enough_is_not_believed_when_redis_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first question and the second: the fence decides, not the record that was found wanting."""
    seen = samples.job(launched=True, started_at=samples.CREATED)

    class Lock:
        answers = iter([Verdict("fresh", 1, 1, None, samples.run(1, State.CANCELLING))])

        async def ask(self, run_id: str, **_: Any) -> Verdict:
            try:
                return next(self.answers)
            except StopIteration:
                raise Unavailable("redis", "away") from None

    class Admission:
        def __init__(self, *_: Any) -> None:
            pass

        async def job(self) -> Job:
            return seen

    monkeypatch.setattr(claim, "_Admission", Admission)
    parts = cast("Platform", SimpleNamespace(lock=Lock(), settings=Settings()))
    assert await claim._claim(parts, samples.record(run_id=samples.run_id(7)), 0) == info(seen)


async def test_a_cancel_tells_what_it_saw_of_a_run_that_is_not_retained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mark may have been written: "not found" would say that nothing was done."""

    async def gone(*_: Any) -> None:
        raise RunNotFound("run")

    monkeypatch.setattr(look, "run", gone)
    mark = CancelMark(requested_by="ada", requested_at=samples.CREATED)
    attempt = cancel._Attempt(cast("Platform", None), mark, None)
    with pytest.raises(RunNotFound):
        await attempt._retained("run")
    attempt._target = samples.job(launched=True)
    assert (await attempt._retained("run")).status is State.UNKNOWN
