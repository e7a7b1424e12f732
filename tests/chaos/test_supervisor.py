"""The process that launches a run on this machine, and stays with it, is killed or stopped at each of its steps."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.chaos.audit import Audit
from tests.chaos.conftest import Judge
from tests.chaos.failpoints import Plan
from tests.chaos.places import SITE, Local
from tests.chaos.test_steps import is_stopped, tried
from tests.integration.server import LocalServer, poll

pytestmark = pytest.mark.slow


@pytest.fixture
def audit(local: Local, judge: Judge) -> Audit:
    """The audit of a place on this machine."""
    return judge(local)


def each_step(audit: Audit, local: Local, how: str) -> Iterator[LocalServer]:
    """A server for each step that is tried, whose next supervisor breaks there."""

    def victim(plan: Plan) -> LocalServer:
        shared(plan).mkdir()
        return local.server(PYTHONPATH=str(SITE), FAIL_AT=str(plan), FAIL_AT_STEPS=str(shared(plan)))

    def shared(plan: Plan) -> Path:
        return local.root / f"steps-{plan.at}"

    counter = victim(Plan(0, how))
    audit.started(counter)
    audit.check()
    counter.kill()
    taken = os.listdir(shared(Plan(0, how)))
    audit.figures["steps in all"] = len(taken)
    for at in tried(taken):
        plan = Plan(at, how)
        server = victim(plan)
        yield server
        audit.check()
        server.kill()
        audit.figures["of them tried"] += (shared(plan) / str(at)).exists()
    audit.finish()


@pytest.mark.fault("a run's supervisor is killed at each of its steps, from its launch to its end")
def test_killed_at_any_step(audit: Audit, local: Local) -> None:
    """The run was never launched, or it has its end: its own, or that it was lost; the next who asks gets past it."""
    audit.may_be_lost = True
    for victim in each_step(audit, local, "kill"):
        audit.ask(victim, held=False)
        assert audit.gets_past(audit.witness).status_code in (200, 201)


@pytest.mark.fault("a run's supervisor is stopped at each of its steps, from its launch to its end")
def test_stopped_at_any_step(audit: Audit, local: Local) -> None:
    """Others are attached to its run, or told who holds them up; when it goes on the run ends as it would have."""
    for victim in each_step(audit, local, "stop"):
        with ThreadPoolExecutor(1) as pool:
            late, stopped = pool.submit(audit.ask, victim, held=False), list[psutil.Process]()
            for _ in poll("the supervisor to come to its step"):
                stopped = [process for process in local.processes() if is_stopped(process)]
                if stopped or (late.done() and not local.processes()):
                    break
            audit.ask(audit.witness)
            for process in stopped:
                process.send_signal(signal.SIGCONT)
            late.result()
