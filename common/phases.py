"""The states of a run, and the only table of how one may follow another.

A state is told from the Job (`common.jobs`); this table is the guard on what is written over an
earlier record: a late or stale writer can never move a run backwards or out of a terminal state.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a run is. `unknown` is told only where the truth cannot be reached."""

    QUEUED = "queued"  # accepted, nothing of it runs yet
    STARTING = "starting"  # its head has been asked for and is coming up
    RUNNING = "running"  # its head runs
    CANCELLING = "cancelling"  # it is being ended, something of it is still there
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        """Whether the run has ended for ever."""
        return self in TERMINAL


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

_ENDS = TERMINAL | {State.UNKNOWN}

# Forward only, but for a head that is started again; steps may be skipped (nobody may have looked in between). A mark
# once set decides the end (see jobs.end_state): `cancelled`, or `failed` for what the controller gave up.
FOLLOWS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.STARTING, State.RUNNING, State.CANCELLING}) | _ENDS,
    State.STARTING: frozenset({State.RUNNING, State.CANCELLING}) | _ENDS,
    State.RUNNING: frozenset({State.STARTING, State.CANCELLING}) | _ENDS,
    State.CANCELLING: frozenset({State.CANCELLED, State.FAILED, State.UNKNOWN}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.UNKNOWN: frozenset(State) - {State.UNKNOWN},
}


def may_follow(before: State, after: State) -> bool:
    """Whether a record that says `before` may be replaced by one that says `after`."""
    return before is after or after in FOLLOWS[before]
