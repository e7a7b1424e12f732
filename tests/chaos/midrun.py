"""A run that something happens in the middle of, while it is followed and asked for at all servers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.chaos.audit import Audit
from tests.chaos.places import said
from tests.integration.server import LocalServer, poll


@contextmanager
def followed(audit: Audit, *servers: LocalServer) -> Iterator[str]:
    """A run that is followed at the first server all the time; in the end all servers know it, and its log is whole."""
    servers = servers or (audit.witness,)
    run_id = audit.started(servers[0])
    (tag,) = [tag for tag, accepted in audit.accepted.items() if accepted == run_id]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(audit.witness.text, run_id)
        try:
            yield run_id
            for server in servers:
                answer = audit.gets_past(server)
                assert (answer.status_code, answer.json()["run_id"]) == (200, run_id)
        finally:
            for _ in poll("the run to be let go on"):  # as soon as its node takes such a word
                audit.place.let(run_id, [tag])
                if following.done():
                    break
        lines = following.result().splitlines()
    assert [line for line in lines if not line.startswith("#")] == said(tag)
    audit.check()
