"""What a Job means is a pure function of it, and never tells an end that has not come."""

from datetime import datetime
from itertools import product
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.jobs import Holder, Job, end_state, info, state
from common.models import CancelMark, RunInfo
from common.phases import State, may_follow
from tests.unit.samples import CREATED, FINISHED, MARK, RUN_ID, SESSION, STARTED, job, record


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, State.QUEUED),
        ({"launched": True}, State.STARTING),
        ({"launched": True, "started_at": STARTED}, State.RUNNING),
        ({"launched": True, "mark": MARK}, State.CANCELLING),
        ({"launched": True, "started_at": STARTED, "mark": MARK}, State.CANCELLING),
        ({"launched": True, "started_at": STARTED, "exit_code": 1}, State.RUNNING),
        ({"launched": True, "condition": "Complete"}, State.SUCCEEDED),
        ({"launched": True, "condition": "Complete", "remains": ("nf-1",)}, State.SUCCEEDED),
        ({"launched": True, "condition": "Failed"}, State.FAILED),
        ({"launched": True, "condition": "Failed", "exit_code": 143}, State.FAILED),
        ({"launched": True, "condition": "Failed", "mark": MARK}, State.CANCELLED),
        ({"launched": True, "condition": "Complete", "mark": MARK}, State.CANCELLED),
        ({"launched": True, "condition": "Failed", "mark": MARK, "remains": ("nf-1",)}, State.CANCELLING),
        ({"sealed": True}, State.FAILED),
        ({"sealed": True, "mark": MARK}, State.CANCELLED),
    ],
)
def test_state(changes: dict[str, Any], expected: State) -> None:
    """Each shape a Job can have is one state."""
    assert state(job(**changes)) is expected


@pytest.mark.parametrize(
    ("sealed", "mark", "condition"), list(product([False, True], [None, MARK], ["Complete", "Failed"]))
)
def test_end_state(sealed: bool, mark: CancelMark | None, condition: Literal["Complete", "Failed"]) -> None:
    """The mark decides before the seal, the seal before the condition."""
    ended = job(sealed=sealed, mark=mark, condition=None if sealed else condition, launched=not sealed)
    if mark:
        assert end_state(ended) is State.CANCELLED
    elif sealed or condition == "Failed":
        assert end_state(ended) is State.FAILED
    else:
        assert end_state(ended) is State.SUCCEEDED


@given(
    launched=st.booleans(),
    sealed=st.booleans(),
    mark=st.sampled_from([None, MARK]),
    condition=st.sampled_from([None, "Complete", "Failed"]),
    started_at=st.sampled_from([None, STARTED]),
    remains=st.sampled_from([(), ("nf-1",)]),
    exit_code=st.sampled_from([None, 0, 1, 143]),
)
def test_no_end_is_told_early(**changes: Any) -> None:
    """A terminal state needs the seal or a condition, "cancelled" a mark and nothing left, whatever else is there."""
    some = job(**changes)
    told = state(some)
    assert not told.terminal or some.ended
    assert told is not State.CANCELLED or (some.mark is not None and not some.remains)
    assert told is not State.UNKNOWN


_LIVES = [
    [{}, {"sealed": True}],
    [{}, {"sealed": True, "mark": MARK}],
    *(
        [
            {},
            {"launched": True},
            {"launched": True, "started_at": started},
            *([{"launched": True, "started_at": started, "mark": mark}] if mark else []),
            {
                "launched": True,
                "started_at": started,
                "mark": mark,
                "condition": condition,
                "remains": ("nf-1",),
            },
            {"launched": True, "started_at": started, "mark": mark, "condition": condition},
        ]
        for started, mark, condition in product([None, STARTED], [None, MARK], ["Complete", "Failed"])
    ),
]


@pytest.mark.parametrize("life", _LIVES)
def test_states_of_every_life_follow_each_other(life: list[dict[str, Any]]) -> None:
    """Whoever sees only some moments of a Job's life may record each of them after the one before."""
    states = [state(job(**moment)) for moment in life]
    for n, before in enumerate(states):
        for after in states[n:]:
            assert may_follow(before, after), (before, after)


def test_info_of_a_queued_run() -> None:
    """All that is known of a run that does not run yet is its request."""
    assert info(job()) == RunInfo(
        run_id=RUN_ID,
        status=State.QUEUED,
        pipeline="owner/name",
        revision="v1",
        profile="test",
        triggered_by="ada",
        created_at=CREATED,
        job_name=RUN_ID,
        session_id=SESSION,
    )


def test_info_of_a_failed_run() -> None:
    """An ended run tells its times, its exit code, and what the runner has to say."""
    ended = job(
        record=record(resumed_from="run-bbbbbbbbbbbbbbbb"),
        launched=True,
        condition="Failed",
        started_at=STARTED,
        finished_at=FINISHED,
        exit_code=137,
        message="Out of memory.",
    )
    assert info(ended) == RunInfo(
        run_id=RUN_ID,
        status=State.FAILED,
        pipeline="owner/name",
        revision="v1",
        profile="test",
        triggered_by="ada",
        created_at=CREATED,
        started_at=STARTED,
        finished_at=FINISHED,
        duration_seconds=3.5,
        exit_code=137,
        job_name=RUN_ID,
        session_id=SESSION,
        resumed_from="run-bbbbbbbbbbbbbbbb",
        message="Out of memory.",
    )


@pytest.mark.parametrize(
    ("some", "expected"),
    [
        (job(message="No node fits."), "No node fits."),
        (job(sealed=True), "It never started."),
        (job(sealed=True, message="No such pipeline."), "No such pipeline."),
        (job(launched=True, mark=MARK), "Cancel requested by ada."),
        (job(launched=True, mark=MARK, condition="Failed", remains=("nf-1",)), "Cancel requested by ada."),
        (job(launched=True, mark=MARK, condition="Failed"), "Cancelled by ada."),
        (job(sealed=True, mark=MARK), "Cancelled by ada."),
    ],
)
def test_message(some: Job, expected: str) -> None:
    """The message says what the state alone does not."""
    assert info(some).message == expected


@pytest.mark.parametrize(("started", "finished"), [(None, FINISHED), (STARTED, None), (None, None)])
def test_no_duration_without_both_times(started: datetime | None, finished: datetime | None) -> None:
    """A duration is told only where it can be told."""
    some = info(job(launched=True, condition="Failed", started_at=started, finished_at=finished))
    assert some.duration_seconds is None


def test_holder_is_run_and_uid() -> None:
    """A Lease names a Job by what no later Job of the same name shares."""
    assert job().holder == Holder(RUN_ID, "uid-1") != job(uid="uid-2").holder


@pytest.mark.parametrize(
    ("changes", "inert", "ended"),
    [
        ({}, True, False),
        ({"launched": True}, False, False),
        ({"launched": True, "mark": MARK}, False, False),
        ({"launched": True, "condition": "Failed"}, False, True),
        ({"sealed": True}, False, True),
    ],
)
def test_inert_and_ended(changes: dict[str, Any], inert: bool, ended: bool) -> None:
    """A Job is inert until it is launched or sealed, and ended for ever by seal or condition."""
    assert (job(**changes).inert, job(**changes).ended) == (inert, ended)
