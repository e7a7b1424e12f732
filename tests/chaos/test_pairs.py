"""Runs that are cancelled right after they began, by several clients at once, at two servers."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from tests.chaos.audit import Audit

pytestmark = pytest.mark.slow

PAIRS = {"local": 10, "cluster": 4}
CLIENTS = 4


@pytest.mark.fault("runs are started and cancelled by several clients at once")
def test_pairs_of_run_and_cancel(audit: Audit) -> None:
    """Each that was accepted is cancelled, by whoever asked for it or was attached to it, and the next one begins."""
    wanted = int(os.environ.get("PAIRS", PAIRS[audit.place.name]))
    servers = [audit.witness, audit.place.server()]
    turns = count()

    def client(number: int) -> None:
        server = servers[number % len(servers)]
        while next(turns) < wanted:
            answer = audit.ask(server)
            if answer.status_code in (200, 201):
                audit.gone(server, answer.json()["run_id"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    while len(audit.named) < wanted:  # who was attached has shared a run
        audit.gone(servers[0], audit.started(servers[0]))
    audit.finish()
    audit.figures["pairs"] = wanted
