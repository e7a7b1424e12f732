"""A server is killed, or stopped for longer than any bound, at each step of a start and of a cancel.

The first request only counts its steps; then as many others come as far as the first of them, the second, and so on.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

STEPS_TRIED = os.environ.get("STEPS", "2")  # of each case, of those that are unlike all before them; `all`: each

Act = Callable[[LocalServer, Plan], httpx.Response]


def tried(taken: Sequence[str]) -> Sequence[int]:
    """The steps that are tried of those that were taken, counted from 1."""
    if STEPS_TRIED == "all":
        return range(1, len(taken) + 1)
    unlike = [at for at, step in enumerate(taken, 1) if step not in taken[: at - 1]]
    apart = max(1, len(unlike) // int(STEPS_TRIED))
    return unlike[apart // 2 :: apart]


def each_step(audit: Audit, act: Act, how: str) -> Iterator[tuple[LocalServer, Plan]]:
    """A new victim for each step that is tried, and the plan to break it there."""
    audit.started(audit.witness)  # what only the first run of a place does is not what is counted
    audit.check()
    audit.figures.clear()
    counter = audit.place.server(BROKEN)
    taken = json.loads(act(counter, Plan(0, how)).headers[STEPS])
    audit.check()
    counter.kill()
    audit.figures["steps in all"] = len(taken)
    for at in tried(taken):
        victim = audit.place.server(BROKEN)
        yield victim, Plan(at, how)
        victim.kill()
        audit.check()
    # Some look again and again, so that others have fewer steps than the one that was counted.
    assert audit.figures["of them tried"] > (len(taken) / 2 if STEPS_TRIED == "all" else 0)
    audit.finish()


@contextmanager
def stopped(audit: Audit, victim: LocalServer, act: Act, plan: Plan) -> Iterator[None]:
    """The victim, stopped at its step; it goes on afterwards, and gives its answer."""
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(act, victim, plan)
        for _ in poll("the victim to come to its step"):
            if is_stopped(victim.process):
                audit.figures["of them tried"] += 1
                break
            if late.done():
                break
        try:
            yield
        finally:
            victim.process.send_signal(signal.SIGCONT)
        late.result()


def is_stopped(process: psutil.Process) -> bool:
    """Whether it stands still."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False


def killed(audit: Audit, victim: LocalServer, act: Act, plan: Plan) -> None:
    """Have the victim die at its step."""
    try:
        act(victim, plan)
    except httpx.TransportError:
        audit.figures["of them tried"] += 1


@pytest.mark.fault("a server is killed at each step of a start")
def test_killed_at_any_step_of_a_start(audit: Audit) -> None:
    """The next who asks gets past it; what was launched runs once and is in the history."""
    for victim, plan in each_step(audit, audit.ask, "kill"):
        killed(audit, victim, audit.ask, plan)
        assert audit.gets_past(audit.witness).status_code in (200, 201)


@pytest.mark.fault("a server is stopped at each step of a start, for longer than any bound")
def test_stopped_at_any_step_of_a_start(audit: Audit) -> None:
    """Another gets past it meanwhile, or is told who holds it up; it launches no second run, and its answer is true."""
    for victim, plan in each_step(audit, audit.ask, "stop"):
        with stopped(audit, victim, audit.ask, plan):
            audit.gets_past(audit.witness)


@pytest.mark.fault("a server is stopped at each step of a start, and its run cancelled meanwhile")
def test_stopped_at_any_step_of_a_start_that_is_cancelled(audit: Audit) -> None:
    """A cancel meanwhile, and another start; the first launches nothing over them, and its answer is true."""
    for victim, plan in each_step(audit, audit.ask, "stop"):
        with stopped(audit, victim, audit.ask, plan):
            audit.gone(audit.witness)
            audit.gets_past(audit.witness)


@pytest.mark.fault("a server is killed at each step of a cancel")
def test_killed_at_any_step_of_a_cancel(audit: Audit) -> None:
    """The next cancel ends the run, leaving nothing of it."""

    def act(server: LocalServer, plan: Plan) -> httpx.Response:
        return audit.cancel(server, audit.started(audit.witness), plan)

    for victim, plan in each_step(audit, act, "kill"):
        killed(audit, victim, act, plan)
        assert audit.gone(audit.witness).status_code in (200, 404)


@pytest.mark.fault("a server is stopped at each step of a cancel, for longer than any bound")
def test_stopped_at_any_step_of_a_cancel(audit: Audit) -> None:
    """Another cancel ends the run, and a new one begins; the first does nothing to that, and its answer is true."""

    def act(server: LocalServer, plan: Plan) -> httpx.Response:
        return audit.cancel(server, audit.started(audit.witness), plan)

    for victim, plan in each_step(audit, act, "stop"):
        with stopped(audit, victim, act, plan):
            (run_id,) = set(audit.accepted.values())
            audit.gone(audit.witness, run_id)
            audit.gets_past(audit.witness)
