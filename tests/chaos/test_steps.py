"""A server is killed, or stopped for longer than any bound, at each step of a start and of a cancel.

The first request only counts its steps; then as many others come as far as the first of them, the second, and so on.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest

from tests.chaos.audit import Audit
from tests.chaos.broken import STEPS
from tests.chaos.failpoints import Plan
from tests.chaos.places import BROKEN
from tests.integration.server import LocalServer, poll

pytestmark = pytest.mark.slow

STEPS_TRIED = os.environ.get("STEPS", "4")  # of each case, from the first to the last; `all`: each

Act = Callable[[LocalServer, Plan], httpx.Response]


def tried(taken: Sequence[str]) -> range:
    """The steps that are tried of those that were taken, counted from 1."""
    apart = 1 if STEPS_TRIED == "all" else (len(taken) - 1) // (int(STEPS_TRIED) - 1)
    return range(1, len(taken) + 1, apart)


def each_step(audit: Audit, act: Act, how: str) -> Iterator[tuple[LocalServer, Plan]]:
    """A new victim for each step that is tried, and the plan to break it there."""
    audit.started(audit.witness)  # what only the first run of a place does is not what is counted
    audit.check()
    audit.figures.clear()
    counter = audit.place.server(BROKEN)
    taken = json.loads(act(counter, Plan(0, how)).headers[STEPS])
    audit.check()
    counter.kill()
    for at in tried(taken):
        victim = audit.place.server(BROKEN)
        yield victim, Plan(at, how)
        victim.kill()
        audit.check()
        audit.figures["steps"] += 1
    audit.finish()


@contextmanager
def stopped(victim: LocalServer, act: Act, plan: Plan) -> Iterator[Future[httpx.Response]]:
    """The victim, stopped at its step; it goes on afterwards, and its late answer is here then."""
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(act, victim, plan)
        for _ in poll("the victim to come to its step"):
            if late.done() or victim.process.status() == psutil.STATUS_STOPPED:
                break
        try:
            yield late
        finally:
            victim.process.send_signal(signal.SIGCONT)
        late.result()


def killed(victim: LocalServer, act: Act, plan: Plan) -> None:
    """Have the victim die at its step."""
    with suppress(httpx.TransportError):
        act(victim, plan)


@pytest.mark.fault("a server is killed at each step of a start")
def test_killed_at_any_step_of_a_start(audit: Audit) -> None:
    """The next who asks gets past it; what was launched runs once and is in the history."""
    for victim, plan in each_step(audit, audit.ask, "kill"):
        killed(victim, audit.ask, plan)
        assert audit.gets_past(audit.witness).status_code in (200, 201)


@pytest.mark.fault("a server is stopped at each step of a start, for longer than any bound")
def test_stopped_at_any_step_of_a_start(audit: Audit) -> None:
    """Another gets past it meanwhile, or is told who holds it up; it launches no second run, and its answer is true."""
    for victim, plan in each_step(audit, audit.ask, "stop"):
        with stopped(victim, audit.ask, plan):
            audit.gets_past(audit.witness)


@pytest.mark.fault("a server is stopped at each step of a start, and its run cancelled meanwhile")
def test_stopped_at_any_step_of_a_start_that_is_cancelled(audit: Audit) -> None:
    """A cancel meanwhile, and another start; the first launches nothing over them, and its answer is true."""
    for victim, plan in each_step(audit, audit.ask, "stop"):
        with stopped(victim, audit.ask, plan):
            audit.gone(audit.witness)
            audit.gets_past(audit.witness)


@pytest.mark.fault("a server is killed at each step of a cancel")
def test_killed_at_any_step_of_a_cancel(audit: Audit) -> None:
    """The next cancel ends the run, leaving nothing of it."""

    def act(server: LocalServer, plan: Plan) -> httpx.Response:
        return audit.cancel(server, audit.started(audit.witness), plan)

    for victim, plan in each_step(audit, act, "kill"):
        killed(victim, act, plan)
        assert audit.gone(audit.witness).status_code in (200, 404)


@pytest.mark.fault("a server is stopped at each step of a cancel, for longer than any bound")
def test_stopped_at_any_step_of_a_cancel(audit: Audit) -> None:
    """Another cancel ends the run, and a new one begins; the first does nothing to that, and its answer is true."""

    def act(server: LocalServer, plan: Plan) -> httpx.Response:
        return audit.cancel(server, audit.started(audit.witness), plan)

    for victim, plan in each_step(audit, act, "stop"):
        with stopped(victim, act, plan):
            (run_id,) = set(audit.accepted.values())
            audit.gone(audit.witness, run_id)
            audit.gets_past(audit.witness)
