"""The table of states is closed, and leads forward only."""

import pytest

from common.phases import FOLLOWS, TERMINAL, State, may_follow


def test_every_state_is_in_the_table() -> None:
    """A new state cannot be forgotten."""
    assert set(FOLLOWS) == set(State)


def test_the_table() -> None:
    """Each pair that is allowed, written down a second time."""
    ends = {"succeeded", "failed", "cancelled"}
    assert {before.value: {after.value for after in FOLLOWS[before]} for before in State} == {
        "queued": {"starting", "running", "cancelling", "unknown"} | ends,
        "starting": {"running", "cancelling", "unknown"} | ends,
        "running": {"starting", "cancelling", "unknown"} | ends,
        "cancelling": {"cancelled", "failed", "unknown"},
        "succeeded": set(),
        "failed": set(),
        "cancelled": set(),
        "unknown": {"queued", "starting", "running", "cancelling"} | ends,
    }


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_an_end_is_for_ever(end: State) -> None:
    """Nothing but itself may be written over an end."""
    assert [state for state in State if may_follow(end, state)] == [end]
    assert end.terminal


def test_terminal_states() -> None:
    """Exactly these end a run; `unknown` does not."""
    assert {state for state in State if state.terminal} == TERMINAL == {State.SUCCEEDED, State.FAILED, State.CANCELLED}


def test_every_state_may_be_recorded_again() -> None:
    """The same state with newer details is no transition."""
    assert all(may_follow(state, state) for state in State)
